// The container runtime behind the simulated kubelet's streams: exec, attach and port-forward.
//
// It isolates nothing: exec starts a local process in the container's scratch folder, with PATH of
// this program and the container's literal environment. Attach meets one `cat` for each container,
// without a terminal of its own. A forwarded port answers HTTP with a greeting, see PortForward.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	v1 "k8s.io/api/core/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	// forwardAnnotation names a loopback HOST:PORT that stands for every port of the pod.
	forwardAnnotation = "test.binnacle/port-forward-to"
	// hangupDelay is what a process on a terminal gets to end by itself after the end of its input, and
	// what a peer gets to close a connection that has nothing more for it.
	hangupDelay = 2 * time.Second
)

// hangupConn ends its context when the peer is gone: a hijacked request's own context does not.
type hangupConn struct {
	net.Conn
	ctx  context.Context
	gone context.CancelFunc
}

func (c *hangupConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	var failure net.Error
	// A time-out is net/http's way to stop its own reading before it hands the connection over.
	if err != nil && !(errors.As(err, &failure) && failure.Timeout()) {
		c.gone()
	}
	return n, err
}

// Close says that nothing more comes and throws away what is still under way: a reset would make the
// kubelet's proxy, which ends with either direction, drop the other one, and a command's status with
// it. Whoever reads meanwhile may go on; to be closed again does no harm.
func (c *hangupConn) Close() error {
	c.gone()
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok || tcp.CloseWrite() != nil {
		return c.Conn.Close()
	}
	go func() {
		// No deadline: a websocket's reader, which may not have ended yet, sets its own.
		defer time.AfterFunc(hangupDelay, func() { _ = tcp.Close() }).Stop()
		_, _ = io.Copy(io.Discard, tcp)
		_ = tcp.Close()
	}()
	return nil
}

type hangupListener struct{ net.Listener }

func (l hangupListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, gone := context.WithCancel(context.Background())
	return &hangupConn{Conn: conn, ctx: ctx, gone: gone}, nil
}

// serveStreams starts the runtime's streaming server, to which the kubelet's handlers proxy.
func (k *kubelet) serveStreams(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: listener.Addr().String()}
	if k.streams, err = streaming.NewServer(config, k); err != nil {
		return err
	}
	server := &http.Server{Handler: k.streams, ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
		if c, ok := conn.(*hangupConn); ok {
			return c.ctx
		}
		return ctx
	}}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(hangupListener{listener}) }()
	return nil
}

// streamID stands for a CRI container or sandbox ID. None of its parts can hold a slash.
func streamID(pod *v1.Pod, container string, stdin bool) string {
	return fmt.Sprintf("%s/%s/%s/%s/%t", pod.Namespace, pod.Name, pod.UID, container, stdin)
}

func (k *kubelet) resolve(ctx context.Context, id string) (pod *v1.Pod, container *v1.Container, stdin bool, err error) {
	part := strings.Split(id, "/")
	if len(part) != 5 {
		return nil, nil, false, fmt.Errorf("malformed container ID %q", id)
	}
	same := func(pod *v1.Pod) bool {
		return string(pod.UID) == part[2] && (part[3] == "" || containerSpec(pod, part[3]) != nil)
	}
	pod, ok := k.findPod(ctx, part[0], part[1], same)
	if !ok || !same(pod) {
		return nil, nil, false, fmt.Errorf("container %q of pod %s/%s is gone", part[3], part[0], part[1])
	}
	return pod, containerSpec(pod, part[3]), part[4] == "true", nil
}

func (k *kubelet) command(ctx context.Context, pod *v1.Pod, container *v1.Container, argv ...string) (*exec.Cmd, error) {
	if len(argv) == 0 {
		return nil, errors.New("a command must be given")
	}
	home := filepath.Join(k.podDir(pod), container.Name)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "HOSTNAME=" + pod.Name}
	for _, env := range container.Env {
		if env.ValueFrom == nil {
			cmd.Env = append(cmd.Env, env.Name+"="+env.Value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd, nil
}

// Exec runs a command until it ends, the client leaves or the pod is deleted.
func (k *kubelet) Exec(ctx context.Context, id string, argv []string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize) error {
	pod, container, stdin, err := k.resolve(ctx, id)
	if err != nil {
		return err
	}
	if !stdin {
		in = nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.scope(pod).ctx, cancel)()
	cmd, err := k.command(ctx, pod, container, argv...)
	if err != nil {
		return err
	}
	k.children.Add(1)
	defer k.children.Done()
	if tty {
		err = runTerminal(ctx, cmd, in, out, resize)
	} else {
		go drain(resize, nil)
		err = runPiped(ctx, cmd, in, out, errOut)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	code := exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return utilexec.CodeExitError{Err: fmt.Errorf("error executing command %v, exit code %d", argv, code), Code: code}
}

func startFailure(err error) error {
	return fmt.Errorf("failed to exec in container: OCI runtime exec failed: unable to start container process: %w", err)
}

// drain applies or drops terminal sizes; unread, they would hold up the other streams.
func drain(resize <-chan remotecommand.TerminalSize, terminal *os.File) {
	if resize == nil {
		return
	}
	for size := range resize {
		if terminal != nil {
			_ = pty.Setsize(terminal, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		}
	}
}

// runPiped uses pipes of its own rather than exec.Cmd's, so that what the command left behind can be
// killed as soon as it ends, while its last output may take as long as the client needs.
func runPiped(ctx context.Context, cmd *exec.Cmd, in io.Reader, out, errOut io.Writer) error {
	var copying sync.WaitGroup
	pipe := func(to io.Writer) (*os.File, error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		stop := context.AfterFunc(ctx, func() { _ = r.Close() })
		copying.Go(func() {
			_, _ = io.Copy(to, r)
			stop()
			_ = r.Close()
		})
		return w, nil
	}
	for _, end := range []struct {
		to   io.Writer
		from *io.Writer
	}{{out, &cmd.Stdout}, {errOut, &cmd.Stderr}} {
		if end.to != nil {
			w, err := pipe(end.to)
			if err != nil {
				return err
			}
			defer w.Close()
			*end.from = w
		}
	}
	if in != nil {
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, in)
			_ = stdin.Close()
		}()
	}
	if err := cmd.Start(); err != nil {
		return startFailure(err)
	}
	for _, w := range []io.Writer{cmd.Stdout, cmd.Stderr} {
		if file, ok := w.(*os.File); ok {
			_ = file.Close()
		}
	}
	err := cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	copying.Wait()
	return err
}

func runTerminal(ctx context.Context, cmd *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.SysProcAttr = nil // pty makes a new session, whose leader has a group of its own
	terminal, err := pty.Start(cmd)
	if err != nil {
		go drain(resize, nil)
		return startFailure(err)
	}
	defer terminal.Close()
	defer context.AfterFunc(ctx, func() { _ = terminal.Close() })()
	go drain(resize, terminal)
	ended := make(chan struct{})
	if in != nil {
		go func() {
			_, _ = io.Copy(terminal, in)
			_, _ = terminal.Write([]byte{4}) // end of transmission: a shell leaves after what it still has to read
			select {
			case <-ended:
			case <-time.After(hangupDelay):
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP)
			}
		}()
	}
	if out == nil {
		out = io.Discard
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(out, terminal)        // ends with EIO once no process holds the terminal
		_, _ = io.Copy(io.Discard, terminal) // the client is gone: do not block the process
	})
	err = cmd.Wait()
	close(ended)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	copying.Wait()
	return err
}

// mainProcess is the simulated main process of a container: what it is told, it logs.
type mainProcess struct {
	stdin io.WriteCloser
	done  chan struct{}
}

func (k *kubelet) mainProcess(pod *v1.Pod, container *v1.Container, l *containerLog) (*mainProcess, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.main != nil {
		select {
		case <-l.main.done:
		default:
			return l.main, nil
		}
	}
	cmd, err := k.command(l.ctx, pod, container, "cat")
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	main := &mainProcess{stdin: stdin, done: make(chan struct{})}
	l.main = main
	k.children.Go(func() {
		reader := bufio.NewReader(stdout)
		for {
			line, err := reader.ReadString('\n')
			if line != "" {
				l.append("stdout", strings.TrimSuffix(line, "\n"))
			}
			if err != nil {
				break
			}
		}
		_ = cmd.Wait()
		close(main.done)
	})
	return main, nil
}

// replacing stands in for what a terminal does to line ends.
type replacing struct {
	to       io.Writer
	old, new string
}

func (r replacing) Write(p []byte) (int, error) {
	if _, err := io.WriteString(r.to, strings.ReplaceAll(string(p), r.old, r.new)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Attach shows what is logged from now on and feeds the main process, until the container ends or
// the client leaves. The end of input ends the main process only if the container says stdinOnce.
func (k *kubelet) Attach(ctx context.Context, id string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize) error {
	go drain(resize, nil)
	pod, container, stdin, err := k.resolve(ctx, id)
	if err != nil {
		return err
	}
	l, err := k.containerLog(pod, container.Name)
	if err != nil {
		return err
	}
	file, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer file.Close()
	// Before any input is passed on: its echo must not be missed.
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	var ended chan struct{}
	if stdin && in != nil {
		main, err := k.mainProcess(pod, container, l)
		if err != nil {
			return err
		}
		ended = main.done
		var input io.Writer = main.stdin
		if tty {
			input = replacing{main.stdin, "\r", "\n"}
		}
		go func() {
			_, _ = io.Copy(input, in)
			if container.StdinOnce {
				_ = main.stdin.Close()
			}
		}()
	}
	var stdout, stderr io.Writer
	if out != nil {
		stdout = out
		if tty {
			stdout = replacing{out, "\n", "\r\n"}
		}
	}
	if errOut != nil {
		stderr = errOut
	}
	return copyLog(ctx, file, &v1.PodLogOptions{Follow: true}, stdout, stderr, func() bool {
		select {
		case <-ended: // nil, and so never ready, when there is no input
			return false
		default:
			return k.runs(ctx, pod, container.Name, l)
		}
	})
}

// PortForward joins the stream to the annotated loopback address or, without one, to a web server
// that answers every request with "hello from NAMESPACE/POD port PORT".
func (k *kubelet) PortForward(ctx context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	pod, _, _, err := k.resolve(ctx, id)
	if err != nil {
		return err
	}
	target, annotated := pod.Annotations[forwardAnnotation]
	if !annotated {
		target = k.greeter.address
	} else if host, _, err := net.SplitHostPort(target); err != nil || !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("annotation %s of pod %s/%s is %q, not a loopback IP:PORT", forwardAnnotation, pod.Namespace, pod.Name, target)
	}
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", target)
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside namespace of pod %s: %w", port, pod.Name, err)
	}
	defer conn.Close()
	defer context.AfterFunc(k.scope(pod).ctx, func() { _ = conn.Close() })()
	if !annotated {
		from := conn.LocalAddr().String()
		k.greeter.greetings.Store(from, fmt.Sprintf("hello from %s/%s port %d\n", pod.Namespace, pod.Name, port))
		defer k.greeter.greetings.Delete(from)
	}
	go func() {
		_, _ = io.Copy(conn, stream)
		if half, ok := conn.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err = io.Copy(stream, conn)
	return err
}

// greeter is one web server for the ports of all pods; it knows them by the caller's address.
type greeter struct {
	address   string
	greetings sync.Map
}

func newGreeter(ctx context.Context) (*greeter, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &greeter{address: listener.Addr().String()}
	server := &http.Server{Handler: g}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return g, nil
}

func (g *greeter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	greeting, ok := g.greetings.Load(r.RemoteAddr)
	text, isText := greeting.(string)
	if !ok || !isText {
		http.Error(w, "no forwarded port", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text)
}
