package main

// Talking to the cluster while it starts: polling until a component is ready, and creating the first objects.
// It is NOT a Kubernetes client: HTTPS and JSON are enough for a dozen requests.

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	pollEvery = 50 * time.Millisecond
	// readyTimeout is for one component on a machine that is busy compiling; idle, the whole start takes five seconds.
	readyTimeout   = 3 * time.Minute
	requestTimeout = 5 * time.Second
	// maxAnswer is far above what the first requests answer with.
	maxAnswer = 8 << 20
)

// errEnded is what waiting ends with when the supervisor itself is asked to end.
var errEnded = errors.New("asked to end while starting")

// startError says which component kept the cluster from starting.
type startError struct {
	component string
	reason    string
}

func (e *startError) Error() string { return e.component + ": " + e.reason }

// prober asks the components of one start, as a cluster admin with a client certificate.
type prober struct {
	http     *http.Client
	server   string
	children *children
	quit     <-chan struct{}
}

func newProber(keys *pki, parts *children, quit <-chan struct{}) (*prober, error) {
	mine := keys.clients["supervisor"]
	certificate, err := tls.X509KeyPair(mine.certificate, mine.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(keys.ca.parsed)
	settings := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}
	return &prober{
		http:     &http.Client{Timeout: requestTimeout, Transport: &http.Transport{TLSClientConfig: settings}},
		server:   "https://" + parts.ports.address("kube-apiserver"),
		children: parts,
		quit:     quit,
	}, nil
}

// until polls ready till it succeeds. It fails when any component dies, after readyTimeout, or when we are to end.
func (p *prober) until(name string, ready func() error) error {
	deadline := time.After(readyTimeout)
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.quit:
			return errEnded
		case part := <-p.children.ended:
			return &startError{part.name, fmt.Sprintf("ended while the cluster was starting (%v)", part.err)}
		case <-deadline:
			return &startError{name, fmt.Sprintf("not ready after %s: %v", readyTimeout, err)}
		case <-ticker.C:
		}
	}
}

// healthy waits until a component answers 200 under path.
func (p *prober) healthy(name, path string) error {
	url := "https://" + p.children.ports.address(name) + path
	return p.until(name, func() error {
		_, err := p.call(http.MethodGet, url, nil, http.StatusOK)
		return err
	})
}

// create posts an object. The first attempts may fail, as its namespace is made by a controller of the API server.
func (p *prober) create(path string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return p.until("kube-apiserver", func() error {
		_, err := p.call(http.MethodPost, p.server+path, body, http.StatusCreated, http.StatusConflict)
		return err
	})
}

func (p *prober) call(method, url string, body []byte, wanted ...int) ([]byte, error) {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	for _, status := range wanted {
		if response.StatusCode == status {
			return answer, nil
		}
	}
	return nil, fmt.Errorf("%s %s: %s: %s", method, url, response.Status, answer[:min(len(answer), 500)])
}

// nodesReady waits until all nodes are Ready and free of taints: a pod made before that gets a FailedScheduling event.
func (p *prober) nodesReady(count int) error {
	return p.until("kwok", func() error {
		answer, err := p.call(http.MethodGet, p.server+"/api/v1/nodes", nil, http.StatusOK)
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Spec struct {
					Taints []any
				}
				Status struct {
					Conditions []struct{ Type, Status string }
				}
			}
		}
		if err := json.Unmarshal(answer, &list); err != nil {
			return err
		}
		ready := 0
		for _, node := range list.Items {
			for _, condition := range node.Status.Conditions {
				if condition.Type == "Ready" && condition.Status == "True" && len(node.Spec.Taints) == 0 {
					ready++
				}
			}
		}
		if ready < count {
			return fmt.Errorf("%d of %d nodes are ready", ready, count)
		}
		return nil
	})
}

// defaultServiceAccount waits until pods can be made in the namespace default.
func (p *prober) defaultServiceAccount() error {
	return p.until("kube-controller-manager", func() error {
		_, err := p.call(http.MethodGet, p.server+"/api/v1/namespaces/default/serviceaccounts/default", nil, http.StatusOK)
		return err
	})
}

type object = map[string]any

func nodeObject(i int) object {
	name := fmt.Sprintf("node-%d", i)
	room := object{"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti"}
	return object{
		"apiVersion": "v1",
		"kind":       "Node",
		"metadata": object{
			"name": name,
			"labels": object{
				"kubernetes.io/hostname":           name,
				"kubernetes.io/os":                 "linux",
				"kubernetes.io/arch":               "amd64",
				"node.kubernetes.io/instance-type": "kwok",
				"topology.kubernetes.io/zone":      fmt.Sprintf("zone-%d", i%3),
				"type":                             "kwok",
			},
			"annotations": object{
				"kwok.x-k8s.io/node": "fake",
				// every node has the same address, so metrics-server must ask for each by its own path
				"metrics.k8s.io/resource-metrics-path": "/metrics/nodes/" + name + "/metrics/resource",
			},
		},
		"status": object{"allocatable": room, "capacity": room},
	}
}

// metricsService leads the API server to metrics-server on this machine: an ExternalName is the one kind of Service
// that may point to loopback.
func metricsService(port int) object {
	return object{
		"apiVersion": "v1",
		"kind":       "Service",
		"metadata":   object{"name": "metrics-server", "namespace": "kube-system", "labels": object{"k8s-app": "metrics-server"}},
		"spec": object{
			"type":         "ExternalName",
			"externalName": "localhost",
			"ports":        []object{{"port": port, "protocol": "TCP"}},
		},
	}
}

func metricsAPIService(port int) object {
	return object{
		"apiVersion": "apiregistration.k8s.io/v1",
		"kind":       "APIService",
		"metadata":   object{"name": "v1beta1.metrics.k8s.io"},
		"spec": object{
			"group":                 "metrics.k8s.io",
			"version":               "v1beta1",
			"groupPriorityMinimum":  100,
			"versionPriority":       100,
			"insecureSkipTLSVerify": true,
			"service":               object{"name": "metrics-server", "namespace": "kube-system", "port": port},
		},
	}
}

// metricsReader is in metrics-server's own manifests: who may view, edit or administer a namespace sees its usage.
func metricsReader() object {
	return object{
		"apiVersion": "rbac.authorization.k8s.io/v1",
		"kind":       "ClusterRole",
		"metadata": object{
			"name": "system:aggregated-metrics-reader",
			"labels": object{
				"rbac.authorization.k8s.io/aggregate-to-view":  "true",
				"rbac.authorization.k8s.io/aggregate-to-edit":  "true",
				"rbac.authorization.k8s.io/aggregate-to-admin": "true",
			},
		},
		"rules": []object{{
			"apiGroups": []string{"metrics.k8s.io"},
			"resources": []string{"pods", "nodes"},
			"verbs":     []string{"get", "list", "watch"},
		}},
	}
}
