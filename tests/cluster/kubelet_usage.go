// What a simulated container shows of itself: its log, read with the kubelet's rules, and its use
// of CPU and memory as the kubelet's /metrics/resource.
//
// Nothing is measured: lines and usage are made up from pod annotations. The kubelet's own log
// reader is not used, as it takes one inotify instance (128 a user by default) for each follower.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apiserver/pkg/util/flushwriter"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // registers how a query becomes PodLogOptions
	"k8s.io/kubernetes/pkg/apis/core/v1/validation"
)

const (
	// linesAnnotation: the log holds exactly this many numbered lines at first use; without it, a
	// "started" line and five numbered ones.
	linesAnnotation = "test.binnacle/log-lines"
	// intervalAnnotation: from first use on, a further numbered line every so many milliseconds.
	intervalAnnotation = "test.binnacle/log-interval-ms"
	followPoll         = 50 * time.Millisecond
	fixedNano          = "2006-01-02T15:04:05.000000000Z07:00" // as the kubelet prints time stamps
)

// containerLog is the log of one run of a container, a file in the CRI's format.
type containerLog struct {
	ctx      context.Context // ends with this run
	cancel   context.CancelFunc
	path     string
	restarts int32
	mu       sync.Mutex
	main     *mainProcess
}

func (l *containerLog) append(stream, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil || l.ctx.Err() != nil {
		return // the pod is gone, or its container was restarted
	}
	defer file.Close()
	_, _ = io.WriteString(file, logLine(time.Now(), stream, text))
}

func (l *containerLog) tick(every time.Duration, line int) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for ; ; line++ {
		select {
		case <-l.ctx.Done():
			return
		case <-ticker.C:
			l.append("stdout", fmt.Sprintf("line %d", line))
		}
	}
}

func logLine(at time.Time, stream, text string) string {
	return at.UTC().Format(fixedNano) + " " + stream + " F " + text + "\n"
}

// containerLog answers the log of the container's present run; a restart moves the old one aside.
func (k *kubelet) containerLog(pod *v1.Pod, container string) (*containerLog, error) {
	s := k.scope(pod)
	s.mu.Lock()
	defer s.mu.Unlock()
	status, _ := containerStatus(pod, container)
	l := s.logs[container]
	if l != nil && l.restarts >= status.RestartCount {
		return l, nil
	}
	path := filepath.Join(k.podDir(pod), container+".log")
	if l != nil {
		l.cancel()
		if err := os.Rename(path, previousLog(path)); err != nil {
			return nil, err
		}
	}
	l = &containerLog{path: path, restarts: status.RestartCount}
	started := pod.CreationTimestamp.Time
	if status.State.Running != nil {
		started = status.State.Running.StartedAt.Time
	} else if status.State.Terminated != nil {
		started = status.State.Terminated.StartedAt.Time
	} else if status.LastTerminationState.Terminated != nil {
		started = status.LastTerminationState.Terminated.StartedAt.Time
	}
	lines, err := writeLog(path, pod, container, started)
	if err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancel(s.ctx)
	s.logs[container] = l
	if ms, err := strconv.Atoi(pod.Annotations[intervalAnnotation]); err == nil && ms > 0 && status.State.Running != nil {
		go l.tick(time.Duration(ms)*time.Millisecond, lines+1)
	}
	return l, nil
}

func previousLog(path string) string { return strings.TrimSuffix(path, ".log") + ".previous.log" }

// writeLog makes the first lines, their times between the container's start and now.
func writeLog(path string, pod *v1.Pod, container string, started time.Time) (int, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	var text strings.Builder
	lines, err := strconv.Atoi(pod.Annotations[linesAnnotation])
	if err != nil || lines < 0 {
		lines = 5
		text.WriteString(logLine(started, "stdout", fmt.Sprintf("container %s of pod %s/%s started", container, pod.Namespace, pod.Name)))
	}
	step := max(0, min(time.Millisecond, time.Since(started)/time.Duration(lines+1)))
	for i := 1; i <= lines; i++ {
		text.WriteString(logLine(started.Add(time.Duration(i)*step), "stdout", fmt.Sprintf("line %d", i)))
	}
	return lines, os.WriteFile(path, []byte(text.String()), 0o644)
}

// serveLogs is the kubelet's getContainerLogs.
func (k *kubelet) serveLogs(w http.ResponseWriter, r *http.Request) {
	name, container, query := r.PathValue("pod"), r.PathValue("container"), r.URL.Query()
	opts := &v1.PodLogOptions{}
	if err := legacyscheme.ParameterCodec.DecodeParameters(query, v1.SchemeGroupVersion, opts); err != nil {
		writeError(w, http.StatusBadRequest, errors.New(`{"message": "Unable to decode query."}`))
		return
	}
	if errs := validation.ValidatePodLogOptions(opts); len(errs) > 0 {
		writeError(w, http.StatusUnprocessableEntity, errors.New(`{"message": "Invalid request."}`))
		return
	}
	pod, ok := k.findPod(r.Context(), r.PathValue("namespace"), name, func(pod *v1.Pod) bool {
		return loggable(pod, container, opts.Previous) == nil
	})
	if !ok {
		writeError(w, http.StatusNotFound, fmt.Errorf("pod %q does not exist", name))
		return
	}
	if containerSpec(pod, container) == nil {
		writeError(w, http.StatusNotFound, fmt.Errorf("container %q not found in pod %q", container, name))
		return
	}
	out := flushwriter.Wrap(w)
	stdout, stderr := out, out
	if opts.Stream != nil && *opts.Stream == v1.LogStreamStdout {
		stderr = nil
	} else if opts.Stream != nil && *opts.Stream == v1.LogStreamStderr {
		stdout = nil
	}
	w.Header().Set("Transfer-Encoding", "chunked")
	if err := k.readLogs(r.Context(), pod, container, opts, stdout, stderr); err != nil {
		writeError(w, http.StatusBadRequest, err)
	}
}

// loggable is the kubelet's validateContainerLogStatus, but for container IDs, which are not simulated.
func loggable(pod *v1.Pod, container string, previous bool) error {
	status, ok := containerStatus(pod, container)
	ended := status.LastTerminationState.Terminated != nil
	switch {
	case !ok:
		return fmt.Errorf("container %q in pod %q is not available", container, pod.Name)
	case previous && !ended:
		return fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
	case previous || ended || status.State.Running != nil || status.State.Terminated != nil:
		return nil
	case status.State.Waiting == nil:
		return fmt.Errorf("container %q in pod %q is waiting to start - no logs yet", container, pod.Name)
	}
	reason := status.State.Waiting.Reason
	switch reason {
	case "ErrImagePull":
		reason = "image can't be pulled"
	case "ImagePullBackOff":
		reason = "trying and failing to pull image"
	}
	return fmt.Errorf("container %q in pod %q is waiting to start: %v", container, pod.Name, reason)
}

func (k *kubelet) readLogs(ctx context.Context, pod *v1.Pod, container string, opts *v1.PodLogOptions, stdout, stderr io.Writer) error {
	if err := loggable(pod, container, opts.Previous); err != nil {
		return err
	}
	l, err := k.containerLog(pod, container)
	if err != nil {
		return err
	}
	path := l.path
	if opts.Previous {
		path = previousLog(path)
		if _, err := os.Stat(path); os.IsNotExist(err) {
			status, _ := containerStatus(pod, container)
			if _, err := writeLog(path, pod, container, status.LastTerminationState.Terminated.StartedAt.Time); err != nil {
				return err
			}
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if stdout != nil { // sends the headers, even if no line ever comes
		if _, err := stdout.Write(nil); err != nil {
			return err
		}
	}
	return copyLog(ctx, file, opts, stdout, stderr, func() bool { return !opts.Previous && k.runs(ctx, pod, container, l) })
}

// runs tells whether the run of the container that writes the log is still on.
func (k *kubelet) runs(ctx context.Context, pod *v1.Pod, container string, l *containerLog) bool {
	same := func(now *v1.Pod) bool {
		status, _ := containerStatus(now, container)
		return now.UID == pod.UID && status.State.Running != nil && status.RestartCount <= l.restarts
	}
	now, ok := k.findPod(ctx, pod.Namespace, pod.Name, same)
	return ok && same(now)
}

// copyLog follows k8s.io/cri-client/pkg/logs: the tail is cut before lines are judged by time,
// limitBytes counts time stamps too, and a line of an unwanted stream counts for nothing.
func copyLog(ctx context.Context, file *os.File, opts *v1.PodLogOptions, stdout, stderr io.Writer, running func() bool) error {
	left, remain, since := int64(math.MaxInt64), int64(math.MaxInt64), time.Time{}
	if opts.TailLines != nil {
		if err := seekTail(file, *opts.TailLines); err != nil {
			return err
		}
		if !opts.Follow {
			left = *opts.TailLines
		}
	}
	if opts.LimitBytes != nil {
		remain = *opts.LimitBytes
	}
	if opts.SinceSeconds != nil {
		since = time.Now().Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	}
	if opts.SinceTime != nil && opts.SinceTime.After(since) {
		since = opts.SinceTime.Time
	}
	reader, pending, alive := bufio.NewReader(file), "", true
	for left > 0 && remain > 0 {
		part, err := reader.ReadString('\n')
		if pending += part; err == io.EOF {
			if !opts.Follow || !alive {
				return nil
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followPoll):
			}
			alive = running() // when it is not, what it wrote last is still to be read
			continue
		} else if err != nil {
			return err
		}
		fields := strings.SplitN(pending, " ", 4)
		pending = ""
		left--
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil || len(fields) < 4 || at.Before(since) {
			continue
		}
		to, line := stdout, fields[3]
		if fields[1] == "stderr" {
			to = stderr
		}
		if opts.Timestamps {
			line = at.Format(fixedNano) + " " + line
		}
		if to == nil {
			continue
		}
		line = line[:min(int64(len(line)), remain)]
		remain -= int64(len(line))
		if _, err := io.WriteString(to, line); err != nil {
			return err
		}
	}
	return nil
}

// seekTail moves to the start of the last n whole lines.
func seekTail(file *os.File, n int64) error {
	starts, reader := []int64{0}, bufio.NewReader(file)
	for {
		line, err := reader.ReadString('\n')
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		starts = append(starts, starts[len(starts)-1]+int64(len(line)))
	}
	_, err := file.Seek(starts[max(0, int64(len(starts))-1-n)], io.SeekStart)
	return err
}

// counter integrates a rate from the start of what it counts, so that it never falls when the rate does.
type counter struct {
	started, at time.Time
	seconds     float64
}

func count(counters map[string]*counter, key string, rate float64, started, now time.Time) float64 {
	c := counters[key]
	if c == nil || !c.started.Equal(started) {
		c = &counter{started: started, at: started}
		counters[key] = c
	}
	if now.After(c.at) {
		c.seconds += rate * now.Sub(c.at).Seconds()
		c.at = now
	}
	return c.seconds
}

func quantityOf(pod *v1.Pod, annotation, fallback string) float64 {
	value, err := resource.ParseQuantity(pod.Annotations[annotation])
	if err != nil {
		value = resource.MustParse(fallback)
	}
	return value.AsApproximateFloat64()
}

// families keeps the lines of each metric together, as the text format demands.
type families struct {
	now   time.Time
	lines map[string]*strings.Builder
}

var familyNames = []struct{ name, kind string }{
	{"container_cpu_usage_seconds_total", "counter"}, {"container_memory_working_set_bytes", "gauge"},
	{"container_start_time_seconds", "gauge"}, {"node_cpu_usage_seconds_total", "counter"},
	{"node_memory_working_set_bytes", "gauge"}, {"pod_cpu_usage_seconds_total", "counter"},
	{"pod_memory_working_set_bytes", "gauge"}, {"resource_scrape_error", "gauge"},
}

func (f families) add(name, labels string, value float64, stamped bool) {
	text := f.lines[name]
	if text == nil {
		text = &strings.Builder{}
		f.lines[name] = text
	}
	text.WriteString(name + labels + " " + strconv.FormatFloat(value, 'g', -1, 64))
	if stamped {
		text.WriteString(" " + strconv.FormatInt(f.now.UnixMilli(), 10))
	}
	text.WriteByte('\n')
}

// serveUsage answers for the node in the path, or for all nodes as one.
func (k *kubelet) serveUsage(w http.ResponseWriter, r *http.Request) {
	node := r.PathValue("node")
	pods := k.pods.GetIndexer().List()
	if node != "" {
		var err error
		if pods, err = k.pods.GetIndexer().ByIndex(byNode, node); err != nil {
			writeError(w, http.StatusInternalServerError, err)
			return
		}
	}
	f := families{now: time.Now(), lines: map[string]*strings.Builder{}}
	rate, memory := 0.1, float64(512<<20) // what the node itself uses, in cores and bytes
	for _, obj := range pods {
		if pod, ok := obj.(*v1.Pod); ok && pod.Status.Phase == v1.PodRunning && pod.Spec.NodeName != "" {
			podRate, podMemory := k.addPod(f, pod)
			rate, memory = rate+podRate, memory+podMemory
		}
	}
	k.mu.Lock()
	seconds := count(k.nodes, node, rate, k.started, f.now)
	k.mu.Unlock()
	f.add("node_cpu_usage_seconds_total", "", seconds, true)
	f.add("node_memory_working_set_bytes", "", memory, true)
	f.add("resource_scrape_error", "", 0, false)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	for _, family := range familyNames {
		if text := f.lines[family.name]; text != nil {
			fmt.Fprintf(w, "# TYPE %s %s\n%s", family.name, family.kind, text)
		}
	}
}

func (k *kubelet) addPod(f families, pod *v1.Pod) (rate, memory float64) {
	eachRate := quantityOf(pod, "kwok.x-k8s.io/usage-cpu", "5m")
	eachMemory := quantityOf(pod, "kwok.x-k8s.io/usage-memory", "20Mi")
	s := k.scope(pod)
	s.mu.Lock()
	defer s.mu.Unlock()
	suffix := fmt.Sprintf(`pod=%q}`, pod.Name)
	for _, list := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].State.Running == nil {
				continue
			}
			started := list[i].State.Running.StartedAt.Time
			labels := fmt.Sprintf(`{container=%q,namespace=%q,`, list[i].Name, pod.Namespace) + suffix
			seconds := count(s.counters, list[i].Name, eachRate, started, f.now)
			f.add("container_cpu_usage_seconds_total", labels, seconds, true)
			f.add("container_memory_working_set_bytes", labels, eachMemory, true)
			f.add("container_start_time_seconds", labels, float64(started.UnixNano())/1e9, false)
			rate, memory = rate+eachRate, memory+eachMemory
		}
	}
	// The sum over containers falls when one restarts; the pod's own counter does not.
	podSeconds := count(s.counters, "", rate, pod.CreationTimestamp.Time, f.now)
	labels := fmt.Sprintf(`{namespace=%q,`, pod.Namespace) + suffix
	f.add("pod_cpu_usage_seconds_total", labels, podSeconds, true)
	f.add("pod_memory_working_set_bytes", labels, memory, true)
	return rate, memory
}
