package main

// The supervisor's child processes: started in one process group, watched, and ended in order.
// It is NOT a general supervisor: the death of one component ends all, unless the caller ordered it (orders.go).

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// patience is how long a component has between TERM and KILL.
	patience = 2 * time.Second
	// tailLines of a log are shown of a component that failed.
	tailLines = 20
)

// component is one running child.
type component struct {
	name    string
	log     string
	child   *exec.Cmd
	ordered atomic.Bool   // its end is wanted
	done    chan struct{} // closed when it has ended and err is set
	err     error
}

// children are the components of one attempt to start the cluster.
type children struct {
	dir    string
	assets string // folder with other binaries of Kubernetes and etcd, or empty
	ports  *heldPorts
	group  int // process group of all of them: the id of the first
	all    []*component
	ended  chan *component
}

func newChildren(dir, assets string) (*children, error) {
	ports, err := holdPorts("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
		"kubelet", "kwok", "metrics-server")
	if err != nil {
		return nil, err
	}
	return &children{dir: dir, assets: assets, ports: ports, ended: make(chan *component, 16)}, nil
}

// command is how a component is called: this very binary, or the one of the assets folder. etcd and
// kube-apiserver have to be there; others are taken if they are, since a scheduler or controller
// manager newer than its API server does not work.
func (c *children) command(name string, args []string) (*exec.Cmd, error) {
	if c.assets != "" {
		path := filepath.Join(c.assets, name)
		_, missing := os.Stat(path)
		if missing == nil || name == "etcd" || name == "kube-apiserver" {
			return exec.Command(path, args...), nil
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("the path of this binary: %w", err)
	}
	return exec.Command(self, append([]string{name}, args...)...), nil
}

// start runs a component with its output at the end of logs/<name>.log. It must be called from one locked thread: on
// Linux a child is killed when the thread that started it ends.
func (c *children) start(name string, args ...string) error {
	path := filepath.Join(c.dir, "logs", name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	child, err := c.command(name, args)
	if err != nil {
		return err
	}
	child.Dir = c.dir
	child.Env = childEnvironment(c.dir)
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = childAttributes(c.group)
	c.ports.release(name)
	c.ports.release(name + "-peer")
	if err := child.Start(); err != nil {
		return fmt.Errorf("%s does not start: %w", name, err)
	}
	if c.group == 0 {
		c.group = child.Process.Pid
	}
	part := &component{name: name, log: path, child: child, done: make(chan struct{})}
	c.all = append(c.all, part)
	go func() {
		part.err = child.Wait()
		close(part.done)
		if !part.ordered.Load() {
			c.ended <- part
		}
	}()
	return nil
}

// kill ends a component as the loss of its machine would, without a word to anybody. Its port stays its own.
func (c *children) kill(name string) error {
	at := c.find(name)
	if at < 0 {
		return fmt.Errorf("%s does not run", name)
	}
	part := c.all[at]
	part.ordered.Store(true)
	if err := part.child.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", name, err)
	}
	<-part.done
	c.all = slices.Delete(c.all, at, at+1)
	return c.ports.reserve(name)
}

// find is the index of a running component, or -1.
func (c *children) find(name string) int {
	return slices.IndexFunc(c.all, func(part *component) bool { return part.name == name })
}

// childEnvironment keeps the person's own configuration (HOME, KUBECONFIG, ETCD_…, proxies) away from the components.
func childEnvironment(dir string) []string {
	environment := []string{"HOME=" + filepath.Join(dir, "home")}
	for _, name := range []string{"PATH", "TMPDIR", "GOMAXPROCS", "GOMEMLIMIT"} {
		if value, set := os.LookupEnv(name); set {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// stop ends every component, etcd last because the API server writes until its end. Nothing survives it.
func (c *children) stop() {
	c.ports.releaseAll()
	var first, last []*component
	for _, part := range c.all {
		if part.name == "etcd" {
			last = append(last, part)
		} else {
			first = append(first, part)
		}
	}
	end(first)
	end(last)
	if c.group != 0 {
		_ = syscall.Kill(-c.group, syscall.SIGKILL) // what they may have left; usually there is no such group any more
	}
	killOrphans()
}

func end(parts []*component) {
	for _, part := range parts {
		_ = part.child.Process.Signal(syscall.SIGTERM)
	}
	deadline := time.After(patience)
	for _, part := range parts {
		select {
		case <-part.done:
		case <-deadline:
			for _, late := range parts {
				_ = late.child.Process.Kill()
			}
			<-part.done
		}
	}
}

// pids are the process ids by component, with the supervisor's own.
func (c *children) pids() map[string]int {
	found := map[string]int{"supervisor": os.Getpid()}
	for _, part := range c.all {
		found[part.name] = part.child.Process.Pid
	}
	return found
}

// tail is the end of a component's log.
func (c *children) tail(name string) string {
	data, err := os.ReadFile(filepath.Join(c.dir, "logs", name+".log"))
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	lines := strings.Split(string(bytes.TrimRight(data, "\n")), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// heldPorts are free loopback ports from the system, by component. Each stays bound until its component starts:
// otherwise one of the many connections on loopback could be given it first.
type heldPorts struct {
	numbers  map[string]int
	held     map[string]net.Listener
	reserved map[string]bool
}

func holdPorts(names ...string) (*heldPorts, error) {
	ports := &heldPorts{numbers: map[string]int{}, held: map[string]net.Listener{}, reserved: map[string]bool{}}
	for _, name := range names {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			ports.releaseAll()
			return nil, fmt.Errorf("no free port for %s: %w", name, err)
		}
		ports.held[name] = listener
		ports.numbers[name] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func (p *heldPorts) release(name string) {
	if listener, held := p.held[name]; held {
		_ = listener.Close()
		delete(p.held, name)
	}
}

// reserve keeps the port of a component that was killed until it is started again, and refuses connections to it.
func (p *heldPorts) reserve(name string) error {
	if p.reserved[name] {
		return nil
	}
	if err := reservePort(p.numbers[name]); err != nil {
		return fmt.Errorf("keeping the port of %s: %w", name, err)
	}
	p.reserved[name] = true
	return nil
}

func (p *heldPorts) releaseAll() {
	for name := range p.held {
		p.release(name)
	}
}

// address is HOST:PORT of a component.
func (p *heldPorts) address(name string) string {
	return fmt.Sprintf("127.0.0.1:%d", p.numbers[name])
}
