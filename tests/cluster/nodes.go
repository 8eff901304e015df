package main

// What kwok is told: its own standard stages for nodes and pods, and ours for pods that do not go well.
// It is NOT a kubelet: containers never run; their state is written as if they did.

import (
	"fmt"
	"strings"

	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
)

// fateAnnotation on a pod chooses how it ends: crash, fail, pending or done. Without it the pod runs, or completes if a Job owns it.
const fateAnnotation = "test.binnacle/fate"

// The parallelism is for tests that create thousands of pods; kwok's defaults take minutes for them.
const kwokOptions = `apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  podPlayStageParallelism: 16
  nodePlayStageParallelism: 8
  nodeLeaseParallelism: 8
`

// kwokConfig is the text of kwok's configuration file, several YAML documents.
func kwokConfig() (string, error) {
	documents := []string{kwokOptions, nodefast.DefaultNodeInit, podfast.DefaultPodDelete, crashStage(), failStage(), pendingStage(), doneStage()}
	for _, stage := range []string{podfast.DefaultPodReady, podfast.DefaultPodComplete} {
		spared, err := sparingFated(stage)
		if err != nil {
			return "", err
		}
		documents = append(documents, spared)
	}
	return strings.Join(documents, "\n---\n"), nil
}

// sparingFated adds to the selector of one of kwok's own stages that it leaves pods with a fate alone.
func sparingFated(stage string) (string, error) {
	const head = "    matchExpressions:\n"
	if strings.Count(stage, head) != 1 {
		return "", fmt.Errorf("kwok's standard stage no longer has exactly one line %q:\n%s", head, stage)
	}
	rule := "    - key: '.metadata.annotations[\"" + fateAnnotation + "\"]'\n" +
		"      operator: 'NotIn'\n" +
		"      values: ['crash', 'fail', 'pending', 'done']\n"
	return strings.Replace(stage, head, head+rule, 1), nil
}

// fateStage is a Stage for pending pods with the given fate; next is its `next`, indented by two.
func fateStage(fate, next string) string {
	return `apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: pod-` + fate + `
spec:
  resourceRef:
    apiGroup: v1
    kind: Pod
  selector:
    matchAnnotations:
      ` + fateAnnotation + `: ` + fate + `
    matchExpressions:
    - key: '.metadata.deletionTimestamp'
      operator: 'DoesNotExist'
    - key: '.status.phase'
      operator: 'In'
      values: ['Pending']
    - key: '.status.containerStatuses.[].state.waiting.reason'
      operator: 'NotIn'
      values: ['ImagePullBackOff']
  next:
` + next
}

// statusOf is a statusTemplate of a pod whose containers are not ready. container says the state of each, indented by six.
func statusOf(phase, container string) string {
	return `    statusTemplate: |
      {{ $now := Now }}
      conditions:
      - lastTransitionTime: {{ $now | Quote }}
        status: "True"
        type: Initialized
      - lastTransitionTime: {{ $now | Quote }}
        status: "False"
        type: Ready
        reason: ContainersNotReady
        message: containers are not ready
      - lastTransitionTime: {{ $now | Quote }}
        status: "False"
        type: ContainersReady
        reason: ContainersNotReady
        message: containers are not ready
      containerStatuses:
      {{ range .spec.containers }}
      - image: {{ .image | Quote }}
        imageID: ""
        name: {{ .name | Quote }}
        ready: false
        started: false
` + container + `      {{ end }}
      {{ $hostIPs := NodeIPsWith .spec.nodeName }}
      {{ with $hostIPs }}
      hostIP: {{ index . 0 | Quote }}
      hostIPs:
      {{ range . }}
      - ip: {{ . | Quote }}
      {{ end }}
      {{ end }}
      {{ $podIPs := PodIPsWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) }}
      {{ with $podIPs }}
      podIP: {{ index . 0 | Quote }}
      podIPs:
      {{ range . }}
      - ip: {{ . | Quote }}
      {{ end }}
      {{ end }}
      phase: ` + phase + `
      startTime: {{ $now | Quote }}
`
}

func warning(reason, message string) string {
	return "    event:\n      type: Warning\n      reason: " + reason + "\n      message: '" + message + "'\n"
}

func crashStage() string {
	return fateStage("crash", warning("BackOff", "Back-off restarting failed container")+statusOf("Running", `        restartCount: 3
        state:
          waiting:
            reason: CrashLoopBackOff
            message: back-off 40s restarting failed container
        lastState:
          terminated:
            exitCode: 1
            reason: Error
            startedAt: {{ $now | Quote }}
            finishedAt: {{ $now | Quote }}
`))
}

func failStage() string {
	return fateStage("fail", statusOf("Failed", `        restartCount: 0
        state:
          terminated:
            exitCode: 1
            reason: Error
            startedAt: {{ $now | Quote }}
            finishedAt: {{ $now | Quote }}
`))
}

func doneStage() string {
	return fateStage("done", statusOf("Succeeded", `        restartCount: 0
        state:
          terminated:
            exitCode: 0
            reason: Completed
            startedAt: {{ $now | Quote }}
            finishedAt: {{ $now | Quote }}
`))
}

func pendingStage() string {
	return fateStage("pending", warning("Failed", "Error: ImagePullBackOff")+statusOf("Pending", `        restartCount: 0
        state:
          waiting:
            reason: ImagePullBackOff
            message: Back-off pulling image
`))
}
