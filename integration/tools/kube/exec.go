package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// How long a client may take to open its streams.
const streamsTimeout = 30 * time.Second

// How long a command may go on after its client has gone.
const hangUpTimeout = 5 * time.Second

// Versions 4 and 5 differ for websockets only.
var execProtocols = []string{"v5.channel.k8s.io", "v4.channel.k8s.io"}

func (c *cluster) subresource(w http.ResponseWriter, r *http.Request, key, name string) {
	c.mu.Lock()
	pod := c.pods[key]
	c.mu.Unlock()
	switch {
	case pod == nil:
		fail(w, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, key))
	case name == "log":
		file, err := os.Open(pod.file("log"))
		if err != nil {
			fail(w, err)
			return
		}
		defer file.Close()
		io.Copy(w, file)
	case name == "exec":
		if err := pod.serveExec(w, r); err != nil {
			log.Println("exec:", err)
		}
	default:
		fail(w, apierrors.NewBadRequest("no such subresource"))
	}
}

// Runs a command in the pod with the streams of the client.
func (p *pod) serveExec(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	types := map[string]bool{corev1.StreamTypeError: true}
	for parameter, stream := range map[string]string{
		"stdin": corev1.StreamTypeStdin, "stdout": corev1.StreamTypeStdout, "stderr": corev1.StreamTypeStderr,
	} {
		if asked, _ := strconv.ParseBool(query.Get(parameter)); asked {
			types[stream] = true
		}
	}
	if _, err := httpstream.Handshake(r, w, execProtocols); err != nil {
		return err
	}
	opened := make(chan httpstream.Stream, len(types))
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		opened <- stream
		return nil
	})
	if connection == nil {
		return errors.New("the connection cannot be upgraded to SPDY")
	}
	defer connection.Close()
	streams := map[string]httpstream.Stream{}
	timeout := time.After(streamsTimeout)
	for len(streams) < len(types) {
		select {
		case stream := <-opened:
			streams[stream.Headers().Get(corev1.StreamType)] = stream
		case <-timeout:
			return errors.New("the client did not open its streams")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-connection.CloseChan():
			// The command sees the end of its input; if that does not end it, it is killed.
			time.AfterFunc(hangUpTimeout, cancel)
		case <-ctx.Done():
		}
	}()
	command := p.command(ctx, query["command"])
	var stdin io.WriteCloser
	if stream, asked := streams[corev1.StreamTypeStdin]; asked {
		pipe, err := command.StdinPipe()
		if err != nil {
			return err
		}
		stdin = pipe
		// Not left to exec.Cmd, which would wait for the client's end of input after the command has ended.
		go func() {
			io.Copy(pipe, stream)
			pipe.Close()
		}()
	}
	if stream, asked := streams[corev1.StreamTypeStdout]; asked {
		command.Stdout = stream
	}
	if stream, asked := streams[corev1.StreamTypeStderr]; asked {
		command.Stderr = stream
	}
	err := command.Run()
	if stdin != nil {
		stdin.Close()
	}
	// Most clients have gone by now.
	json.NewEncoder(streams[corev1.StreamTypeError]).Encode(exitStatus(err))
	return nil
}

// What the error stream says at the end of a command.
func exitStatus(err error) *metav1.Status {
	if err == nil {
		return &metav1.Status{Status: metav1.StatusSuccess}
	}
	status := &metav1.Status{Status: metav1.StatusFailure, Message: err.Error(), Reason: metav1.StatusReasonInternalError}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status.Reason = "NonZeroExitCode"
		status.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{
			{Type: "ExitCode", Message: strconv.Itoa(exit.ExitCode())},
		}}
	}
	return status
}
