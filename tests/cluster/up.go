package main

// `cluster up`: makes keys, picks ports, starts every component in order, says where the cluster is, obeys orders, and
// ends all of it together. It is NOT a daemon: the cluster lives as long as the caller's end of stdin, or until a signal.

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// attempts at starting the whole, for the rare case that another program takes a port between release and use.
	attempts = 3
	// marker in a folder says that it is ours to empty.
	marker = ".test-cluster"
)

type upOptions struct {
	dir       string
	assets    string
	nodes     int
	bare      bool
	noMetrics bool
	keepStdin bool
	hold      bool
}

func parseUp(args []string) (*upOptions, error) {
	o := &upOptions{}
	flags := flag.NewFlagSet("cluster up", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "folder for keys, data and logs, kept at the end (default: a temporary one, removed)")
	flags.StringVar(&o.assets, "assets", "", "folder whose etcd and kube-apiserver are run in place of ours")
	flags.IntVar(&o.nodes, "nodes", 3, "number of nodes")
	flags.BoolVar(&o.bare, "bare", false, "run etcd and kube-apiserver alone; orders on stdin may start more")
	flags.BoolVar(&o.noMetrics, "no-metrics", false, "run without metrics-server")
	flags.BoolVar(&o.keepStdin, "keep-stdin", false, "go on when stdin ends; then only a signal ends the cluster")
	flags.BoolVar(&o.hold, "hold", false, "for work by hand: go on when stdin ends, and print how to use the cluster")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("cluster up takes no arguments, only flags; got %q", flags.Args())
	}
	if o.nodes < 0 {
		return nil, fmt.Errorf("--nodes must not be negative; got %d", o.nodes)
	}
	if o.assets != "" {
		// The components run in another folder than this process.
		assets, err := filepath.Abs(o.assets)
		if err != nil {
			return nil, err
		}
		o.assets = assets
	}
	return o, nil
}

// upMain runs the cluster and returns the exit code: 0 when it was asked to end, 1 when something failed, 2 for bad usage.
func upMain(args []string) int {
	begun := time.Now()
	options, err := parseUp(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	runtime.LockOSThread() // see children.start
	quit, orders := listen(options)
	if err := adoptOrphans(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, remove, err := prepareDir(options.dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	for attempt := 1; ; attempt++ {
		again, err := run(options, dir, quit, orders, begun, attempt < attempts)
		switch {
		case err == nil, errors.Is(err, errEnded):
			return 0
		case again:
			fmt.Fprintf(os.Stderr, "a port was taken meanwhile, starting again: %v\n", err)
		default:
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// listen hears the caller: quit is closed on a signal and when stdin ends, orders are the lines of stdin. With
// --keep-stdin and --hold stdin is not read.
func listen(options *upOptions) (quit <-chan struct{}, orders <-chan string) {
	asked, lines := make(chan struct{}), make(chan string, 1)
	var once sync.Once
	end := func() { once.Do(func() { close(asked) }) }
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() { <-signals; end() }()
	// With a handler, writing to a caller that is gone is an error and no longer the death of this process.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if !options.hold && !options.keepStdin {
		go func() { readOrders(lines); end() }()
	}
	return asked, lines
}

// readOrders returns when stdin ends. It never waits for an order to be obeyed, as it would then miss that end.
func readOrders(orders chan<- string) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		select {
		case orders <- lines.Text():
		default:
			fmt.Fprintf(os.Stderr, "not obeyed, as the order before it has not been answered: %s\n", lines.Text())
		}
	}
}

// prepareDir is the cluster's folder and what to do with it at the end. A folder given by the caller must be new,
// empty, or one of an earlier cluster: it is emptied by every start.
func prepareDir(wanted string) (string, func(), error) {
	if wanted == "" {
		dir, err := os.MkdirTemp("", "test-cluster-")
		if err != nil {
			return "", nil, err
		}
		return dir, func() { _ = os.RemoveAll(dir) }, nil
	}
	dir, err := filepath.Abs(wanted)
	if err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); err != nil && len(entries) > 0 {
		return "", nil, fmt.Errorf("--dir %s has files that are not of a test cluster; give a new or empty folder", dir)
	}
	return dir, func() {}, os.WriteFile(filepath.Join(dir, marker), nil, 0o600)
}

// run starts the cluster once, serves until it is to end, and stops everything. again says that the failure was a
// port in use while starting, and that another attempt is allowed.
func run(options *upOptions, dir string, quit <-chan struct{}, orders <-chan string, begun time.Time,
	mayRepeat bool) (again bool, err error) {
	parts, err := newChildren(dir, options.assets)
	if err != nil {
		return false, err
	}
	defer parts.stop()
	probe, err := start(options, parts, quit)
	if err != nil {
		err = withLog(err, parts)
		return mayRepeat && strings.Contains(err.Error(), "address already in use"), err
	}
	if err := announce(options, parts, time.Since(begun)); err != nil {
		return false, fmt.Errorf("cannot say where the cluster is: %w", err)
	}
	for {
		select {
		case <-quit:
			return false, nil
		case part := <-parts.ended:
			return false, fmt.Errorf("%s ended (%v), so the whole cluster ends; the end of its log:\n%s",
				part.name, part.err, parts.tail(part.name))
		case order := <-orders:
			if err := obey(order, parts, probe); err != nil {
				return false, withLog(err, parts)
			}
			if _, err := fmt.Println("done: " + order); err != nil {
				return false, fmt.Errorf("cannot say that %q is done: %w", order, err)
			}
		}
	}
}

// withLog adds the end of the log of the component that failed to start.
func withLog(err error, parts *children) error {
	var failed *startError
	if errors.As(err, &failed) {
		return fmt.Errorf("%w\nthe end of its log:\n%s", err, parts.tail(failed.component))
	}
	return err
}

// start brings everything up, in the order of need. All waiting is done here, one after the other, while the
// components themselves start side by side.
func start(options *upOptions, parts *children, quit <-chan struct{}) (*prober, error) {
	if err := emptyFolders(parts.dir); err != nil {
		return nil, err
	}
	keys, err := newPKI()
	if err != nil {
		return nil, err
	}
	probe, err := newProber(keys, parts, quit)
	if err != nil {
		return nil, err
	}
	if err := writeFiles(keys, parts.dir, probe.server); err != nil {
		return nil, err
	}
	if err := startBare(parts, probe); err != nil || options.bare {
		return probe, err
	}
	return probe, startRest(options, parts, probe)
}

func emptyFolders(dir string) error {
	for _, name := range []string{"etcd", "home", "kubeconfigs", "logs", "pki", "scratch"} {
		path := filepath.Join(dir, name)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// startRest starts all but etcd and the API server, and waits until pods run.
func startRest(options *upOptions, parts *children, probe *prober) error {
	if err := startControllerManager(parts); err != nil {
		return err
	}
	if err := startScheduler(parts); err != nil {
		return err
	}
	if err := startNodes(options, parts, probe); err != nil {
		return err
	}
	if !options.noMetrics {
		if err := startMetrics(parts, probe); err != nil {
			return err
		}
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kubelet", "kwok"} {
		if err := probe.healthy(name, "/healthz"); err != nil {
			return err
		}
	}
	if err := probe.defaultServiceAccount(); err != nil {
		return err
	}
	return probe.nodesReady(options.nodes)
}

// writeFiles writes all that the components read.
func writeFiles(keys *pki, dir, server string) error {
	folder := filepath.Join(dir, "pki")
	if err := keys.write(folder); err != nil {
		return err
	}
	if err := keys.writeKubeconfigs(server, filepath.Join(dir, "kubeconfigs"), folder); err != nil {
		return err
	}
	if err := writeTokens(filepath.Join(folder, "tokens.csv")); err != nil {
		return err
	}
	text, err := kwokConfig()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "kwok.yaml"), []byte(text), 0o600)
}

// firstLine is what a program that started us reads from stdout: one line of JSON.
type firstLine struct {
	Server      string            `json:"server"`
	Dir         string            `json:"dir"`
	CA          string            `json:"ca"`
	Kubeconfigs string            `json:"kubeconfigs"`
	Tokens      map[string]string `json:"tokens"`
	Ports       map[string]int    `json:"ports"`
	Seconds     float64           `json:"seconds"`
	PIDs        map[string]int    `json:"pids"`
}

func announce(options *upOptions, parts *children, took time.Duration) error {
	kubeconfigs := filepath.Join(parts.dir, "kubeconfigs")
	if options.hold {
		_, err := fmt.Printf("The cluster is up after %.1f s. In another terminal:\n\n"+
			"  export KUBECONFIG=%s/admin.yaml\n\n"+
			"Other users have their files beside it. Logs: %s/logs. End it here with Ctrl-C.\n",
			took.Seconds(), kubeconfigs, parts.dir)
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(firstLine{
		Server:      "https://" + parts.ports.address("kube-apiserver"),
		Dir:         parts.dir,
		CA:          filepath.Join(parts.dir, "pki", "ca.crt"),
		Kubeconfigs: kubeconfigs,
		Tokens:      tokens(),
		Ports:       parts.ports.numbers,
		Seconds:     took.Round(time.Millisecond).Seconds(),
		PIDs:        parts.pids(),
	})
}
