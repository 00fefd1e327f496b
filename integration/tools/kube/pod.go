package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The grace period of pods that name none.
const defaultGrace = 30 * time.Second

// How often the kubelet looks whether the process of a pod is still there.
const watchInterval = 100 * time.Millisecond

type kubelet struct {
	state, runtime string
	images         map[string]*image
}

// One pod with one container, from its start to its end.
type pod struct {
	cluster *cluster
	// Replaced under the cluster's lock.
	spec *corev1.Pod
	stop chan struct{}
	pid  int
	dir  string
}

func (p *pod) id() string { return "kube-" + strconv.Itoa(os.Getpid()) + "-" + p.spec.Name }

func (p *pod) file(name string) string {
	return filepath.Join(p.cluster.kubelet.state, "pods", p.spec.Name, name)
}

// Starts the pod, probes it, and ends it when it is told to. A process that ends by itself is started again.
func (p *pod) run() {
	defer p.cluster.gone(p)
	p.dir = p.file("")
	for {
		err := p.start()
		if err == nil {
			p.cluster.update(p, func(status *corev1.PodStatus) { status.Phase = corev1.PodRunning })
			err = p.watch()
		}
		p.remove()
		if err == nil {
			return
		}
		log.Println("pod", p.spec.Name, "failed:", err)
		p.cluster.update(p, func(status *corev1.PodStatus) {
			status.Phase, status.Message, status.Conditions = corev1.PodPending, err.Error(), nil
		})
		select {
		case <-p.stop:
			return
		case <-time.After(time.Second):
		}
	}
}

// Watches a running process; nothing when it ended because it was told to.
func (p *pod) watch() error {
	container := &p.spec.Spec.Containers[0]
	unhealthy := make(chan error, 1)
	done := make(chan struct{})
	defer close(done)
	go p.probe(container.ReadinessProbe, done, func(err error) {
		condition := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
		if err != nil {
			condition.Status, condition.Message = corev1.ConditionFalse, err.Error()
		}
		p.cluster.update(p, func(status *corev1.PodStatus) { status.Conditions = []corev1.PodCondition{condition} })
	})
	if container.LivenessProbe != nil {
		go p.probe(container.LivenessProbe, done, func(err error) {
			if err != nil {
				select {
				case unhealthy <- err:
				default:
				}
			}
		})
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case err := <-unhealthy:
			p.terminate()
			return fmt.Errorf("the liveness probe failed: %w", err)
		case <-tick.C:
			if !p.lives() {
				return errors.New("the process has ended, see the log")
			}
		case <-p.stop:
			p.terminate()
			return nil
		}
	}
}

// Runs a probe by its delays and thresholds and tells what comes of it; without a probe all is well.
func (p *pod) probe(probe *corev1.Probe, done <-chan struct{}, tell func(error)) {
	if probe == nil {
		tell(nil)
		return
	}
	seconds := func(given, otherwise int32) time.Duration {
		if given == 0 {
			given = otherwise
		}
		return time.Duration(given) * time.Second
	}
	failures := int32(0)
	wait := seconds(probe.InitialDelaySeconds, 0)
	for {
		select {
		case <-done:
			return
		case <-time.After(wait):
		}
		begun := time.Now()
		err := p.probeOnce(probe, seconds(probe.TimeoutSeconds, 1))
		took := time.Since(begun).Round(time.Millisecond)
		if err == nil {
			log.Println("probe of", p.spec.Name, "succeeded after", took)
			failures = 0
			tell(nil)
		} else {
			log.Println("probe of", p.spec.Name, "failed after", took, "with", err)
			if failures++; failures >= max(probe.FailureThreshold, 1) {
				tell(err)
			}
		}
		wait = seconds(probe.PeriodSeconds, 10)
		if err != nil {
			// A pod that does not answer yet is asked again soon, so that tests need not wait for a whole period.
			wait = min(wait, time.Second)
		}
	}
}

func (p *pod) probeOnce(probe *corev1.Probe, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.handle(ctx, probe.Exec, probe.HTTPGet, probe.TCPSocket)
}

// Does what a probe or a hook says.
func (p *pod) handle(ctx context.Context, run *corev1.ExecAction, get *corev1.HTTPGetAction, dial *corev1.TCPSocketAction) error {
	switch {
	case run != nil:
		output, err := p.command(ctx, run.Command).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w: %s", run.Command, err, output)
		}
		return nil
	case get != nil:
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+p.port(get.Port.String())+get.Path, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode >= 400 {
			return errors.New(answer.Status)
		}
		return nil
	case dial != nil:
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+p.port(dial.Port.String()))
		if err != nil {
			return err
		}
		return connection.Close()
	}
	return errors.New("a handler of this kind is not built")
}

// A port by its name or number.
func (p *pod) port(text string) string {
	for _, port := range p.spec.Spec.Containers[0].Ports {
		if port.Name == text {
			return strconv.Itoa(int(port.ContainerPort))
		}
	}
	return text
}

// Prepares a command inside the pod's container.
func (p *pod) command(ctx context.Context, command []string) *exec.Cmd {
	return exec.CommandContext(ctx, p.cluster.kubelet.runtime, append([]string{"exec", p.id()}, command...)...)
}

func (p *pod) lives() bool {
	return p.pid > 0 && syscall.Kill(p.pid, 0) == nil && !isZombie(p.pid)
}

// Ends the process as a kubelet does: the hook, a signal, a grace period, the end.
func (p *pod) terminate() {
	grace := defaultGrace
	if given := p.spec.Spec.TerminationGracePeriodSeconds; given != nil {
		grace = time.Duration(*given) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if lifecycle := p.spec.Spec.Containers[0].Lifecycle; lifecycle != nil && lifecycle.PreStop != nil {
		hook := lifecycle.PreStop
		if hook.Sleep != nil {
			select {
			case <-time.After(time.Duration(hook.Sleep.Seconds) * time.Second):
			case <-ctx.Done():
			}
		} else if err := p.handle(ctx, hook.Exec, hook.HTTPGet, hook.TCPSocket); err != nil {
			log.Println("preStop of", p.spec.Name, "failed:", err)
		}
	}
	begun := time.Now()
	syscall.Kill(p.pid, syscall.SIGTERM)
	for p.lives() && ctx.Err() == nil {
		time.Sleep(watchInterval)
	}
	log.Println("pod", p.spec.Name, "ended", time.Since(begun).Round(time.Millisecond), "after its signal; killed:", p.lives())
}
