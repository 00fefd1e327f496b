// Command kube is as much of a Kubernetes cluster as a builder needs: an API server and a kubelet in one process.
//
// The API server keeps deployments, stateful sets, config maps, secrets, services and pods, in JSON or protobuf as the client likes,
// and runs commands in pods over SPDY. The kubelet starts the processes of pods with an OCI runtime in namespaces of their own, from
// images of archives, runs their probes and ends them as a kubelet does: preStop, SIGTERM, grace period, SIGKILL. Pods have the host's network,
// or a network of nothing but a loopback interface when they ask for a user namespace, which cannot have the host's.
//
//	kube --state DIR --image NAME=ARCHIVE... --runtime PROGRAM
//	kube --state DIR apply|delete FILE
//
// The first writes DIR/kubeconfig, says "ready" on its standard output, and ends with its pods when its standard input ends.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	state := flag.String("state", "", "folder of the pods, the image and kubeconfig")
	archives := map[string]string{}
	flag.Func("image", "an image for pods, as NAME=ARCHIVE of docker save; may be given several times", func(value string) error {
		name, archive, named := strings.Cut(value, "=")
		if !named {
			return errors.New("want NAME=ARCHIVE")
		}
		archives[name] = archive
		return nil
	})
	runtime := flag.String("runtime", "runc", "OCI runtime")
	flag.Parse()
	if flag.NArg() == 2 {
		if err := manifests(*state, flag.Arg(1), flag.Arg(0)); err != nil {
			log.Fatal("kube: ", err)
		}
		return
	}
	if err := run(*state, archives, *runtime); err != nil {
		log.Fatal("kube: ", err)
	}
}

func run(state string, archives map[string]string, runtime string) error {
	if state == "" || len(archives) == 0 {
		return fmt.Errorf("usage: kube --state DIR --image NAME=ARCHIVE... [--runtime PROGRAM]")
	}
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	if err := adoptOrphans(); err != nil {
		return err
	}
	images := map[string]*image{}
	for name, archive := range archives {
		opened, err := openImage(filepath.Join(state, "images", strings.ReplaceAll(name, ":", "-")), archive)
		if err != nil {
			return err
		}
		images[name] = opened
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	token := make([]byte, 16)
	rand.Read(token)
	cluster := newCluster(&kubelet{state: state, images: images, runtime: runtime}, fmt.Sprintf("%x", token))
	// SPDY is asked for by an upgrade of HTTP/1.1.
	server := &http.Server{
		Handler:   cluster,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}},
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(listener, "", "") }()
	if err := writeKubeconfig(filepath.Join(state, "kubeconfig"), listener.Addr().String(), cluster.token, certificate); err != nil {
		return err
	}
	fmt.Println("ready")
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	select {
	case err = <-failed:
	case <-ended:
	}
	cluster.shutDown()
	return err
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "kube"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func writeKubeconfig(file, address, token string, certificate tls.Certificate) error {
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: kube
  cluster:
    server: https://%s
    certificate-authority-data: %s
users:
- name: kube
  user:
    token: %s
contexts:
- name: kube
  context:
    cluster: kube
    user: kube
    namespace: default
current-context: kube
`, address, base64.StdEncoding.EncodeToString(authority), token)
	return os.WriteFile(file, []byte(text), 0o600)
}
