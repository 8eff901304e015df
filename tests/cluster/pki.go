package main

// Keys and certificates of the cluster, made with Go's own crypto: ECDSA P-256, valid for a year.
// It is NOT an example for a real cluster: one admin-like certificate serves several components, keys lie in plain files.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	certificateLife = 365 * 24 * time.Hour
	// Certificates start a little in the past, so that a clock stepped back during the run does not void them.
	clockSlack = time.Hour
)

// pair is a certificate and its private key, both PEM.
type pair struct{ certificate, key []byte }

// authority is a certificate authority that can sign.
type authority struct {
	pair
	parsed *x509.Certificate
	signer *ecdsa.PrivateKey
}

// subject says whom a certificate is for: name becomes the user, organizations become the groups.
type subject struct {
	name          string
	organizations []string
}

// pki is all that the components need, in memory; write puts it into files.
type pki struct {
	ca, frontProxyCA *authority
	// serving certificates: the API server's (also used by the controller manager, the scheduler and metrics-server),
	// and the nodes' (our kubelet and kwok)
	apiserver, node pair
	// client certificates by name: those that the API server shows to others, and those of the components' kubeconfigs
	frontProxyClient, kubeletClient pair
	clients                         map[string]pair
	serviceAccountKey               []byte
	serviceAccountPublic            []byte
}

// componentSubjects are the client certificates of the components that talk to the API server.
var componentSubjects = map[string]subject{
	"supervisor":              {"supervisor", []string{"system:masters"}},
	"kube-controller-manager": {"system:kube-controller-manager", nil},
	"kube-scheduler":          {"system:kube-scheduler", nil},
	"kwok":                    {"kwok", []string{"system:masters"}},
	"kubelet":                 {"kubelet", []string{"system:masters"}},
	"metrics-server":          {"metrics-server", []string{"system:masters"}},
}

func newPKI() (*pki, error) {
	p := &pki{clients: map[string]pair{}}
	var err error
	if p.ca, err = newAuthority("test-ca"); err != nil {
		return nil, err
	}
	if p.frontProxyCA, err = newAuthority("test-front-proxy-ca"); err != nil {
		return nil, err
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local"}
	if p.apiserver, err = p.ca.serving("kube-apiserver", names, net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)); err != nil {
		return nil, err
	}
	if p.node, err = p.ca.serving("node", []string{"localhost"}, net.IPv4(127, 0, 0, 1)); err != nil {
		return nil, err
	}
	if p.frontProxyClient, err = p.frontProxyCA.client(subject{name: "front-proxy-client"}); err != nil {
		return nil, err
	}
	kubelet := subject{"kube-apiserver-kubelet-client", []string{"system:masters"}}
	if p.kubeletClient, err = p.ca.client(kubelet); err != nil {
		return nil, err
	}
	for name, who := range componentSubjects {
		if p.clients[name], err = p.ca.client(who); err != nil {
			return nil, err
		}
	}
	return p, p.newServiceAccountKey()
}

func (p *pki) newServiceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	if p.serviceAccountKey, err = keyPEM(key); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	p.serviceAccountPublic = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	return nil
}

// write puts into folder what the components read as files.
func (p *pki) write(folder string) error {
	files := map[string][]byte{
		"ca.crt":             p.ca.certificate,
		"ca.key":             p.ca.key,
		"front-proxy-ca.crt": p.frontProxyCA.certificate,
		"sa.key":             p.serviceAccountKey,
		"sa.pub":             p.serviceAccountPublic,
	}
	pairs := map[string]pair{
		"apiserver":          p.apiserver,
		"node":               p.node,
		"front-proxy-client": p.frontProxyClient,
		"kubelet-client":     p.kubeletClient,
	}
	for name, both := range pairs {
		files[name+".crt"], files[name+".key"] = both.certificate, both.key
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", name, err)
	}
	template, err := newTemplate(subject{name: name})
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	both, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(both.certificate)
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	return &authority{pair: both, parsed: parsed, signer: key}, nil
}

func (a *authority) serving(name string, names []string, addresses ...net.IP) (pair, error) {
	template, err := newTemplate(subject{name: name})
	if err != nil {
		return pair{}, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames = names
	template.IPAddresses = addresses
	return a.issue(template)
}

func (a *authority) client(who subject) (pair, error) {
	template, err := newTemplate(who)
	if err != nil {
		return pair{}, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(template)
}

func (a *authority) issue(template *x509.Certificate) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("key of %s: %w", template.Subject.CommonName, err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return sign(template, a.parsed, key, a.signer)
}

func newTemplate(who subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("serial number for %s: %w", who.name, err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: who.name, Organization: who.organizations},
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(certificateLife),
	}, nil
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (pair, error) {
	name := template.Subject.CommonName
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return pair{}, fmt.Errorf("certificate of %s: %w", name, err)
	}
	private, err := keyPEM(key)
	if err != nil {
		return pair{}, fmt.Errorf("key of %s: %w", name, err)
	}
	return pair{certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: private}, nil
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
