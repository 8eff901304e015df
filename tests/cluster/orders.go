package main

// Orders on stdin, for tests of what happens when a component dies: `kill NAME` and `start NAME`, one a line, each
// answered by a line on stdout when it is done. It is NOT a shell: a component is started as `up` itself starts it.

import (
	"fmt"
	"strings"
)

// orderable is what can be killed, and started on its old port and with the files of this cluster, and the path under
// which it says that it answers. metrics-server is not ready before it has figures, so it is only asked if it lives.
var orderable = map[string]struct {
	start  func(*children) error
	health string
}{
	"kube-apiserver":          {startAPIServer, "/readyz"},
	"kube-controller-manager": {startControllerManager, "/healthz"},
	"kube-scheduler":          {startScheduler, "/healthz"},
	"kubelet":                 {startKubelet, "/healthz"},
	"metrics-server":          {startMetricsServer, "/livez"},
}

// obey does what one line says. `kill` is over when the process is gone, `start` when the component answers. An order
// that cannot be obeyed is an error, and ends the cluster.
func obey(order string, parts *children, probe *prober) error {
	verb, name, _ := strings.Cut(order, " ")
	component, known := orderable[name]
	switch {
	case !known || verb != "kill" && verb != "start":
		return fmt.Errorf("not an order: %q; `kill NAME` and `start NAME` are, of a component that is not etcd or kwok", order)
	case verb == "kill":
		return parts.kill(name)
	case parts.find(name) >= 0:
		return fmt.Errorf("%q: it runs already", order)
	}
	if err := component.start(parts); err != nil {
		return err
	}
	return probe.healthy(name, component.health)
}
