package main

// The flags of every component, in the order in which they are started.
// It is NOT advice for real clusters: durability is traded for speed, and everything listens on loopback.

import (
	"fmt"
	"path/filepath"
)

// startBare starts what an API server needs to answer and to remember.
func startBare(parts *children, probe *prober) error {
	if err := startEtcd(parts); err != nil {
		return err
	}
	if err := startAPIServer(parts); err != nil {
		return err
	}
	return probe.healthy("kube-apiserver", "/readyz")
}

func startEtcd(parts *children) error {
	client, peer := "http://"+parts.ports.address("etcd"), "http://"+parts.ports.address("etcd-peer")
	return parts.start("etcd",
		"--name=test",
		"--data-dir="+filepath.Join(parts.dir, "etcd"),
		"--unsafe-no-fsync",
		"--snapshot-count=100000",
		"--quota-backend-bytes=4294967296",
		"--listen-client-urls="+client,
		"--advertise-client-urls="+client,
		"--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer,
		"--initial-cluster=test="+peer,
		"--log-level=warn")
}

func startAPIServer(parts *children) error {
	file := pkiFile(parts)
	return parts.start("kube-apiserver",
		"--etcd-servers=http://"+parts.ports.address("etcd"),
		"--bind-address=127.0.0.1",
		securePort(parts, "kube-apiserver"),
		// the Service `kubernetes` may not have a loopback endpoint, so it is given one that nobody uses
		"--advertise-address=10.96.255.254",
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file="+file("apiserver.crt"),
		"--tls-private-key-file="+file("apiserver.key"),
		"--client-ca-file="+file("ca.crt"),
		"--token-auth-file="+file("tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file="+file("sa.key"),
		"--service-account-key-file="+file("sa.pub"),
		"--requestheader-client-ca-file="+file("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+file("front-proxy-client.crt"),
		"--proxy-client-key-file="+file("front-proxy-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate="+file("kubelet-client.crt"),
		"--kubelet-client-key="+file("kubelet-client.key"),
		"--max-requests-inflight=3000",
		"--max-mutating-requests-inflight=1000",
		"--shutdown-delay-duration=0s")
}

func startControllerManager(parts *children) error {
	file := pkiFile(parts)
	kubeconfig := file("kube-controller-manager.kubeconfig")
	return parts.start("kube-controller-manager",
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1",
		securePort(parts, "kube-controller-manager"),
		"--tls-cert-file="+file("apiserver.crt"),
		"--tls-private-key-file="+file("apiserver.key"),
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+file("sa.key"),
		"--root-ca-file="+file("ca.crt"),
		"--cluster-signing-cert-file="+file("ca.crt"),
		"--cluster-signing-key-file="+file("ca.key"),
		"--requestheader-client-ca-file="+file("front-proxy-ca.crt"),
		"--kube-api-qps=1000",
		"--kube-api-burst=2000",
		"--concurrent-deployment-syncs=20",
		"--concurrent-replicaset-syncs=20",
		"--concurrent-namespace-syncs=20",
		"--horizontal-pod-autoscaler-sync-period=5s")
}

func startScheduler(parts *children) error {
	file := pkiFile(parts)
	kubeconfig := file("kube-scheduler.kubeconfig")
	return parts.start("kube-scheduler",
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1",
		securePort(parts, "kube-scheduler"),
		"--tls-cert-file="+file("apiserver.crt"),
		"--tls-private-key-file="+file("apiserver.key"),
		"--leader-elect=false",
		"--kube-api-qps=1000",
		"--kube-api-burst=2000")
}

// startNodes starts what stands behind the nodes, then makes them: kwok gives them life and names our kubelet as
// their endpoint for logs, exec, attach, port-forward and metrics.
func startNodes(options *upOptions, parts *children, probe *prober) error {
	if err := startKubelet(parts); err != nil {
		return err
	}
	file := pkiFile(parts)
	err := parts.start("kwok",
		"--kubeconfig="+file("kwok.kubeconfig"),
		"--config="+file("kwok.yaml"),
		"--manage-all-nodes=true",
		"--cidr=10.244.0.0/16",
		"--node-ip=127.0.0.1",
		fmt.Sprintf("--node-port=%d", parts.ports.numbers["kubelet"]),
		"--server-address="+parts.ports.address("kwok"),
		"--node-lease-duration-seconds=40",
		"--tls-cert-file="+file("node.crt"),
		"--tls-private-key-file="+file("node.key"))
	if err != nil {
		return err
	}
	for i := range options.nodes {
		if err := probe.create("/api/v1/nodes", nodeObject(i)); err != nil {
			return err
		}
	}
	return nil
}

func startKubelet(parts *children) error {
	file := pkiFile(parts)
	return parts.start("kubelet",
		"--address="+parts.ports.address("kubelet"),
		"--cert="+file("node.crt"),
		"--key="+file("node.key"),
		"--client-ca="+file("ca.crt"),
		"--kubeconfig="+file("kubelet.kubeconfig"),
		"--scratch="+filepath.Join(parts.dir, "scratch"))
}

func startMetricsServer(parts *children) error {
	file := pkiFile(parts)
	kubeconfig := file("metrics-server.kubeconfig")
	return parts.start("metrics-server",
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address=127.0.0.1",
		securePort(parts, "metrics-server"),
		"--tls-cert-file="+file("apiserver.crt"),
		"--tls-private-key-file="+file("apiserver.key"),
		"--kubelet-insecure-tls",
		"--kubelet-use-node-status-port",
		"--kubelet-preferred-address-types=InternalIP",
		"--metric-resolution=10s",
		"--kubelet-request-timeout=5s") // must be below the resolution
}

// startMetrics makes metrics.k8s.io known. The first figures come some twenty seconds later; nobody waits for them here.
func startMetrics(parts *children, probe *prober) error {
	if err := startMetricsServer(parts); err != nil {
		return err
	}
	port := parts.ports.numbers["metrics-server"]
	if err := probe.create("/api/v1/namespaces/kube-system/services", metricsService(port)); err != nil {
		return err
	}
	if err := probe.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", metricsReader()); err != nil {
		return err
	}
	return probe.create("/apis/apiregistration.k8s.io/v1/apiservices", metricsAPIService(port))
}

// pkiFile gives paths in the folder of keys and configuration.
func pkiFile(parts *children) func(string) string {
	return func(name string) string { return filepath.Join(parts.dir, "pki", name) }
}

func securePort(parts *children, name string) string {
	return fmt.Sprintf("--secure-port=%d", parts.ports.numbers[name])
}
