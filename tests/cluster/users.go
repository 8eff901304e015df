package main

// The people of the cluster: token users, client certificate users, and a kubeconfig for each.
// It is NOT where rights are given: but for the two admins nobody may do anything until a test binds a role.

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// genericUsers is how many token users without any rights there are, for tests that need several people.
const genericUsers = 8

// person is a user of the cluster. Those with a token sign in by it, the others by a client certificate.
type person struct {
	file   string // name of the kubeconfig and key in the tokens of the first line
	name   string // the user that Kubernetes sees
	groups []string
	token  string
}

func people() []person {
	all := []person{
		{file: "admin", name: "token-admin", groups: []string{"system:masters"}, token: "admin-token"},
		{file: "viewer", name: "viewer", groups: []string{"viewers"}, token: "viewer-token"},
		{file: "nobody", name: "nobody", token: "nobody-token"},
		{file: "cert-admin", name: "cert-admin", groups: []string{"system:masters"}},
		{file: "cert-user", name: "cert-user"},
	}
	for i := range genericUsers {
		name := fmt.Sprintf("user-%d", i)
		all = append(all, person{file: name, name: name, token: name + "-token"})
	}
	return all
}

// tokens are the bearer tokens by the name of the kubeconfig.
func tokens() map[string]string {
	found := map[string]string{}
	for _, who := range people() {
		if who.token != "" {
			found[who.file] = who.token
		}
	}
	return found
}

// writeTokens writes the API server's --token-auth-file: token,user,uid,"group,group".
func writeTokens(path string) error {
	var text strings.Builder
	for i, who := range people() {
		if who.token != "" {
			fmt.Fprintf(&text, "%s,%s,u%d,%q\n", who.token, who.name, i+1, strings.Join(who.groups, ","))
		}
	}
	return os.WriteFile(path, []byte(text.String()), 0o600)
}

// writeKubeconfigs writes one kubeconfig a person into peopleDir and one a component into componentDir.
func (p *pki) writeKubeconfigs(server, peopleDir, componentDir string) error {
	for _, who := range people() {
		credentials := "{token: " + who.token + "}"
		if who.token == "" {
			both, err := p.ca.client(subject{name: who.name, organizations: who.groups})
			if err != nil {
				return err
			}
			credentials = certificateCredentials(both)
		}
		if err := p.writeKubeconfig(filepath.Join(peopleDir, who.file+".yaml"), server, who.name, credentials); err != nil {
			return err
		}
	}
	for name, both := range p.clients {
		path := filepath.Join(componentDir, name+".kubeconfig")
		if err := p.writeKubeconfig(path, server, name, certificateCredentials(both)); err != nil {
			return err
		}
	}
	return nil
}

const kubeconfigTemplate = `apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: %[1]s
    certificate-authority-data: %[2]s
users:
- name: %[3]s
  user: %[4]s
contexts:
- name: test
  context:
    cluster: test
    user: %[3]s
current-context: test
`

func (p *pki) writeKubeconfig(path, server, user, credentials string) error {
	text := fmt.Sprintf(kubeconfigTemplate, server, base64.StdEncoding.EncodeToString(p.ca.certificate), user, credentials)
	return os.WriteFile(path, []byte(text), 0o600)
}

func certificateCredentials(both pair) string {
	return fmt.Sprintf("{client-certificate-data: %s, client-key-data: %s}",
		base64.StdEncoding.EncodeToString(both.certificate), base64.StdEncoding.EncodeToString(both.key))
}
