// The kubelet's streaming and metrics HTTP API for simulated nodes, so that the API server's logs,
// exec, attach and port-forward and metrics-server meet the kubelet's own protocol code and errors.
//
// It is not a kubelet: it starts no pods, mounts nothing, reports no status and isolates nothing.
// Another program plays the lifecycle of nodes and pods; a command run by exec is a plain local
// process in a scratch folder. Only what tests observe over HTTP is meant to be exact.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
)

// byNode is the name of the informer's index of pods by the node they are bound to.
const byNode = "node"

type kubelet struct {
	client   kubernetes.Interface
	pods     cache.SharedIndexInformer
	scratch  string
	started  time.Time
	streams  streaming.Server
	greeter  *greeter
	root     context.Context // ends with the program
	children sync.WaitGroup  // local processes still to be reaped

	mu     sync.Mutex
	scopes map[types.UID]*podScope
	nodes  map[string]*counter
}

// podScope is what this program holds for one pod, dropped when the pod is deleted.
type podScope struct {
	ctx      context.Context
	cancel   context.CancelFunc
	mu       sync.Mutex
	logs     map[string]*containerLog
	counters map[string]*counter
}

func kubeletMain(args []string) int {
	flags := flag.NewFlagSet("kubelet", flag.ContinueOnError)
	address := flags.String("address", "", "HOST:PORT to serve HTTPS on")
	cert := flags.String("cert", "", "PEM file of the serving certificate")
	key := flags.String("key", "", "PEM file of its key")
	clientCA := flags.String("client-ca", "", "PEM file of the authority that signs client certificates")
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig with which pods are watched")
	scratch := flags.String("scratch", "", "folder for container logs and working directories")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := runKubelet(ctx, *address, *cert, *key, *clientCA, *kubeconfig, *scratch); err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		return 1
	}
	return 0
}

func runKubelet(ctx context.Context, address, cert, key, clientCA, kubeconfig, scratch string) error {
	if address == "" || scratch == "" {
		return errors.New("--address and --scratch must be given")
	}
	pem, err := os.ReadFile(clientCA)
	if err != nil {
		return fmt.Errorf("--client-ca: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--client-ca: %s has no PEM certificate", clientCA)
	}
	if scratch, err = filepath.Abs(scratch); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := &kubelet{client: client, scratch: scratch, started: time.Now(), root: ctx,
		scopes: map[types.UID]*podScope{}, nodes: map[string]*counter{}}
	if err := k.watchPods(ctx); err != nil {
		return err
	}
	if k.greeter, err = newGreeter(ctx); err != nil {
		return err
	}
	if err := k.serveStreams(ctx); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: k.handler(), TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: authorities}}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err = server.ServeTLS(listener, cert, key); errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	cancel() // ends every local process
	k.children.Wait()
	return err
}

// watchPods starts the informer. It does not wait for the first list: look-ups ask the API server
// for what the informer does not know.
func (k *kubelet) watchPods(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(k.client, 0,
		informers.WithTransform(func(obj any) (any, error) {
			if pod, ok := obj.(*v1.Pod); ok {
				pod.ManagedFields = nil
			}
			return obj, nil
		}))
	k.pods = factory.Core().V1().Pods().Informer()
	if err := k.pods.AddIndexers(cache.Indexers{byNode: func(obj any) ([]string, error) {
		if pod, ok := obj.(*v1.Pod); ok && pod.Spec.NodeName != "" {
			return []string{pod.Spec.NodeName}, nil
		}
		return nil, nil
	}}); err != nil {
		return err
	}
	_, err := k.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, new any) {
			before, ok := old.(*v1.Pod)
			if after, same := new.(*v1.Pod); ok && same && before.UID != after.UID {
				k.release(before)
			}
		},
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if pod, ok := obj.(*v1.Pod); ok {
				k.release(pod)
			}
		},
	})
	factory.Start(ctx.Done())
	return err
}

// handler routes as pkg/kubelet/server does; only /healthz is open to callers without a certificate.
func (k *kubelet) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.serveLogs)
	mux.HandleFunc("GET /metrics/resource", k.serveUsage)
	mux.HandleFunc("GET /metrics/nodes/{node}/metrics/resource", k.serveUsage)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", k.serveExec)
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", k.serveExec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", k.serveAttach)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", k.serveAttach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", k.servePortForward)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", k.servePortForward)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
			writeError(w, http.StatusUnauthorized, errors.New("Unauthorized"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (k *kubelet) serveExec(w http.ResponseWriter, r *http.Request) {
	k.serveCommand(w, r, func(opts *remotecommand.Options, pod *v1.Pod, spec *v1.Container) (string, error) {
		if spec == nil {
			return "", fmt.Errorf("container not found (%q)", r.PathValue("container"))
		}
		response, err := k.streams.GetExec(&runtimeapi.ExecRequest{
			ContainerId: streamID(pod, spec.Name, opts.Stdin), Cmd: r.URL.Query()[api.ExecCommandParam],
			Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, Tty: opts.TTY})
		return response.GetUrl(), err
	})
}

func (k *kubelet) serveAttach(w http.ResponseWriter, r *http.Request) {
	k.serveCommand(w, r, func(opts *remotecommand.Options, pod *v1.Pod, spec *v1.Container) (string, error) {
		if spec == nil {
			return "", fmt.Errorf("container %s not found in pod %s_%s", r.PathValue("container"), pod.Name, pod.Namespace)
		}
		// Whether the process has a terminal was decided when it started, by the container.
		response, err := k.streams.GetAttach(&runtimeapi.AttachRequest{
			ContainerId: streamID(pod, spec.Name, opts.Stdin),
			Stdin:       opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, Tty: spec.TTY})
		return response.GetUrl(), err
	})
}

// serveCommand is the kubelet's getExec and getAttach; locate gets a nil container when none of
// that name is running, and answers the address of the prepared stream.
func (k *kubelet) serveCommand(w http.ResponseWriter, r *http.Request,
	locate func(*remotecommand.Options, *v1.Pod, *v1.Container) (string, error)) {
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	container := r.PathValue("container")
	fits := func(pod *v1.Pod) bool {
		uid := r.PathValue("uid")
		return isRunning(pod, container) && (uid == "" || uid == string(pod.UID))
	}
	pod, ok := k.findPod(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), fits)
	if !ok {
		writeError(w, http.StatusNotFound, errors.New("pod does not exist"))
		return
	}
	var spec *v1.Container
	if fits(pod) {
		spec = containerSpec(pod, container)
	}
	target, err := locate(opts, pod, spec)
	if err != nil {
		_ = streaming.WriteError(err, w)
		return
	}
	handler, location := upgradeProxy(target)
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		handler = translator.NewStreamTranslatorHandler(location, nil, 0, translator.Options{
			Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, Tty: opts.TTY})
	}
	handler.ServeHTTP(w, r)
}

func (k *kubelet) servePortForward(w http.ResponseWriter, r *http.Request) {
	tunnel := wsstream.IsWebSocketRequestWithTunnelingProtocol(r)
	opts := &portforward.V4Options{}
	if !tunnel {
		var err error
		if opts, err = portforward.NewV4Options(r); err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
	}
	uid := r.PathValue("uid")
	fits := func(pod *v1.Pod) bool {
		return pod.Status.Phase == v1.PodRunning && (uid == "" || uid == string(pod.UID))
	}
	pod, ok := k.findPod(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), fits)
	if !ok {
		writeError(w, http.StatusNotFound, errors.New("pod does not exist"))
		return
	}
	if uid != "" && uid != string(pod.UID) {
		writeError(w, http.StatusNotFound, errors.New("pod not found"))
		return
	}
	if !fits(pod) {
		_ = streaming.WriteError(fmt.Errorf("pod not found (%q)", pod.Name+"_"+pod.Namespace), w)
		return
	}
	response, err := k.streams.GetPortForward(&runtimeapi.PortForwardRequest{
		PodSandboxId: streamID(pod, "", true), Port: opts.Ports})
	if err != nil {
		_ = streaming.WriteError(err, w)
		return
	}
	handler, _ := upgradeProxy(response.GetUrl())
	if tunnel {
		handler = translator.NewTunnelingHandler(handler)
	}
	handler.ServeHTTP(w, r)
}

type proxyErrors struct{}

func (proxyErrors) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func upgradeProxy(target string) (http.Handler, *url.URL) {
	location, err := url.Parse(target)
	if err != nil { // the address was made by this program
		panic(err)
	}
	return proxy.NewUpgradeAwareHandler(location, nil, false, true, proxyErrors{}), location
}

// writeError is go-restful's WriteError: the bare text, without a line end.
func writeError(w http.ResponseWriter, status int, err error) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, err.Error())
}

// findPod answers the informer's pod when it fits, otherwise what the API server says now: a client
// may act on a status that has not reached the informer. The answer need not fit.
func (k *kubelet) findPod(ctx context.Context, namespace, name string, fits func(*v1.Pod) bool) (*v1.Pod, bool) {
	obj, ok, err := k.pods.GetStore().GetByKey(namespace + "/" + name)
	if pod, isPod := obj.(*v1.Pod); err == nil && ok && isPod && fits(pod) {
		return pod, true
	}
	pod, err := k.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	return pod, err == nil
}

func (k *kubelet) scope(pod *v1.Pod) *podScope {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.scopes[pod.UID]
	if s == nil {
		s = &podScope{logs: map[string]*containerLog{}, counters: map[string]*counter{}}
		s.ctx, s.cancel = context.WithCancel(k.root)
		k.scopes[pod.UID] = s
	}
	return s
}

// release ends everything that runs for a deleted pod and removes its files.
func (k *kubelet) release(pod *v1.Pod) {
	k.mu.Lock()
	s := k.scopes[pod.UID]
	delete(k.scopes, pod.UID)
	k.mu.Unlock()
	if s != nil {
		s.cancel()
		_ = os.RemoveAll(k.podDir(pod))
	}
}

func (k *kubelet) podDir(pod *v1.Pod) string {
	return filepath.Join(k.scratch, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID))
}

func containerSpec(pod *v1.Pod, name string) *v1.Container {
	var found *v1.Container
	podutil.VisitContainers(&pod.Spec, podutil.AllFeatureEnabledContainers(),
		func(c *v1.Container, _ podutil.ContainerType) bool {
			if c.Name == name {
				found = c
			}
			return found == nil
		})
	return found
}

func containerStatus(pod *v1.Pod, name string) (v1.ContainerStatus, bool) {
	for _, list := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses,
		pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		if status, ok := podutil.GetContainerStatus(list, name); ok {
			return status, true
		}
	}
	return v1.ContainerStatus{}, false
}

func isRunning(pod *v1.Pod, container string) bool {
	status, ok := containerStatus(pod, container)
	return ok && status.State.Running != nil
}
