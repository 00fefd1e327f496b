package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"sort"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
)

// The most bytes of an object that a client may send.
const maxObjectBytes = 3 << 20

// What is kept, by the last word of its path, with the path's first words.
var resources = map[string]string{
	"deployments":  "/apis/apps/v1",
	"statefulsets": "/apis/apps/v1",
	"configmaps":   "/api/v1",
	"secrets":      "/api/v1",
	"services":     "/api/v1",
	"pods":         "/api/v1",
}

type object interface {
	runtime.Object
	metav1.Object
}

type cluster struct {
	token   string
	kubelet *kubelet
	decoder runtime.Decoder

	mu sync.Mutex
	// By resource, then by namespace/name.
	objects map[string]map[string]object
	pods    map[string]*pod
	version int
	ending  sync.WaitGroup
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
}

func newCluster(kubelet *kubelet, token string) *cluster {
	c := &cluster{
		token:   token,
		kubelet: kubelet,
		decoder: serializer.NewCodecFactory(newScheme(), serializer.EnableStrict).UniversalDeserializer(),
		objects: map[string]map[string]object{},
		pods:    map[string]*pod{},
	}
	for resource := range resources {
		c.objects[resource] = map[string]object{}
	}
	return c
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	log.Println(r.Method, r.URL)
	if r.Header.Get("Authorization") != "Bearer "+c.token {
		fail(w, apierrors.NewUnauthorized("wrong token"))
		return
	}
	place, rest, found := strings.Cut(r.URL.Path, "/namespaces/")
	words := strings.Split(rest, "/")
	if !found || len(words) < 2 || resources[words[1]] != place {
		fail(w, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, r.URL.Path, "not served here", 0, false))
		return
	}
	namespace, resource, name := words[0], words[1], ""
	if len(words) > 2 {
		name = words[2]
	}
	if len(words) == 4 && resource == "pods" {
		c.subresource(w, r, namespace+"/"+name, words[3])
		return
	}
	answer, err := c.call(r, namespace, resource, name)
	if err != nil {
		fail(w, err)
		return
	}
	send(w, http.StatusOK, answer)
}

func (c *cluster) call(r *http.Request, namespace, resource, name string) (any, error) {
	var sent object
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxObjectBytes))
		if err != nil {
			return nil, err
		}
		decoded, _, err := c.decoder.Decode(body, nil, nil)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		sent = decoded.(object)
		if sent.GetNamespace() == "" {
			sent.SetNamespace(namespace)
		}
		if name == "" {
			name = sent.GetName()
		}
	}
	key, kind := namespace+"/"+name, schema.GroupResource{Resource: resource}
	c.mu.Lock()
	defer c.mu.Unlock()
	current, exists := c.objects[resource][key]
	switch {
	case r.Method == http.MethodPost && exists:
		return nil, apierrors.NewAlreadyExists(kind, name)
	case r.Method == http.MethodPost && name != "":
		sent.SetUID(types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", c.version)))
		c.put(resource, key, sent)
		c.reconcile(sent)
		return sent, nil
	case r.Method == http.MethodGet && name == "":
		return c.list(resource, namespace, r.URL.Query().Get("labelSelector"))
	case !exists:
		return nil, apierrors.NewNotFound(kind, name)
	case r.Method == http.MethodPut:
		sent.SetUID(current.GetUID())
		c.put(resource, key, sent)
		c.reconcile(sent)
		return sent, nil
	case r.Method == http.MethodDelete:
		if resource == "pods" {
			c.end(c.pods[key])
		} else {
			delete(c.objects[resource], key)
			c.reconcile(current)
		}
		return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}, nil
	case r.Method == http.MethodGet:
		return current, nil
	}
	return nil, apierrors.NewMethodNotSupported(kind, r.Method)
}

func (c *cluster) put(resource, key string, sent object) {
	c.version++
	sent.SetResourceVersion(fmt.Sprint(c.version))
	c.objects[resource][key] = sent
}

func (c *cluster) list(resource, namespace, selector string) (any, error) {
	selected, err := labels.Parse(selector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	items := []object{}
	for _, one := range c.objects[resource] {
		if one.GetNamespace() == namespace && selected.Matches(labels.Set(one.GetLabels())) {
			items = append(items, one)
		}
	}
	sort.Slice(items, func(i, j int) bool { return items[i].GetName() < items[j].GetName() })
	kind := "List"
	if resource == "pods" {
		kind = "PodList"
	}
	return map[string]any{
		"kind": kind, "apiVersion": "v1", "items": items,
		"metadata": metav1.ListMeta{ResourceVersion: fmt.Sprint(c.version)},
	}, nil
}

// The pods that an object of ours wants, by their names; nothing for objects without pods or that are gone.
func (c *cluster) wanted(owner object) (map[string]*corev1.Pod, *metav1.LabelSelector) {
	var template corev1.PodTemplateSpec
	var selector *metav1.LabelSelector
	var replicas *int32
	named, resource := "%s-7d4b8c%d", "deployments"
	switch owner := owner.(type) {
	case *appsv1.Deployment:
		template, selector, replicas = owner.Spec.Template, owner.Spec.Selector, owner.Spec.Replicas
	case *appsv1.StatefulSet:
		template, selector, replicas = owner.Spec.Template, owner.Spec.Selector, owner.Spec.Replicas
		named, resource = "%s-%d", "statefulsets"
	default:
		return nil, nil
	}
	pods := map[string]*corev1.Pod{}
	if _, exists := c.objects[resource][owner.GetNamespace()+"/"+owner.GetName()]; !exists {
		return pods, selector
	}
	count := int32(1)
	if replicas != nil {
		count = *replicas
	}
	for index := range count {
		pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
		pod.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
		pod.Namespace, pod.Name = owner.GetNamespace(), fmt.Sprintf(named, owner.GetName(), index)
		if set, ok := owner.(*appsv1.StatefulSet); ok {
			for _, claim := range set.Spec.VolumeClaimTemplates {
				pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + pod.Name},
				}})
			}
		}
		pods[pod.Name] = pod
	}
	return pods, selector
}

// Starts the pods of an object that are missing and ends those that are too many. The lock is held.
func (c *cluster) reconcile(owner object) {
	wanted, selector := c.wanted(owner)
	selected, err := metav1.LabelSelectorAsSelector(selector)
	if wanted == nil || err != nil {
		return
	}
	for _, pod := range c.pods {
		if wanted[pod.spec.Name] == nil && pod.spec.Namespace == owner.GetNamespace() && selected.Matches(labels.Set(pod.spec.Labels)) {
			c.end(pod)
		}
	}
	for name, spec := range wanted {
		key := spec.Namespace + "/" + name
		if c.pods[key] != nil {
			continue
		}
		spec.Status.Phase = corev1.PodPending
		pod := &pod{cluster: c, spec: spec, stop: make(chan struct{})}
		c.pods[key] = pod
		c.put("pods", key, spec)
		go pod.run()
	}
}

// Tells a pod to end. The lock is held.
func (c *cluster) end(pod *pod) {
	if pod == nil || pod.spec.DeletionTimestamp != nil {
		return
	}
	now := metav1.Now()
	pod.spec.DeletionTimestamp = &now
	c.ending.Add(1)
	close(pod.stop)
}

// Changes what is said of a pod, and with it the counts of its owners.
func (c *cluster) update(pod *pod, change func(*corev1.PodStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := pod.spec.DeepCopy()
	changed.DeletionTimestamp = pod.spec.DeletionTimestamp
	change(&changed.Status)
	pod.spec = changed
	c.put("pods", changed.Namespace+"/"+changed.Name, changed)
	c.count()
}

// Takes a pod that has ended out of the lists.
func (c *cluster) gone(pod *pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := pod.spec.Namespace + "/" + pod.spec.Name
	delete(c.pods, key)
	delete(c.objects["pods"], key)
	c.count()
	for _, resource := range []string{"deployments", "statefulsets"} {
		for _, owner := range c.objects[resource] {
			c.reconcile(owner)
		}
	}
	c.ending.Done()
}

func (c *cluster) count() {
	ready := func(owner object) (count int32) {
		wanted, _ := c.wanted(owner)
		for name := range wanted {
			pod := c.pods[owner.GetNamespace()+"/"+name]
			if pod != nil && pod.spec.DeletionTimestamp == nil && isReady(&pod.spec.Status) {
				count++
			}
		}
		return count
	}
	for _, owner := range c.objects["deployments"] {
		owner := owner.(*appsv1.Deployment)
		owner.Status.ReadyReplicas = ready(owner)
	}
	for _, owner := range c.objects["statefulsets"] {
		owner := owner.(*appsv1.StatefulSet)
		owner.Status.ReadyReplicas = ready(owner)
	}
}

func (c *cluster) shutDown() {
	c.mu.Lock()
	for _, resource := range []string{"deployments", "statefulsets"} {
		c.objects[resource] = map[string]object{}
	}
	for _, pod := range c.pods {
		c.end(pod)
	}
	c.mu.Unlock()
	c.ending.Wait()
}

func isReady(status *corev1.PodStatus) bool {
	for _, condition := range status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func send(w http.ResponseWriter, code int, answer any) {
	if typed, ok := answer.(runtime.Object); ok {
		setKind(typed)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(answer)
}

// The decoder takes the kind out of objects; clients want it back.
func setKind(typed runtime.Object) {
	var kind schema.GroupVersionKind
	switch typed.(type) {
	case *appsv1.Deployment:
		kind = appsv1.SchemeGroupVersion.WithKind("Deployment")
	case *appsv1.StatefulSet:
		kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	case *corev1.ConfigMap:
		kind = corev1.SchemeGroupVersion.WithKind("ConfigMap")
	case *corev1.Secret:
		kind = corev1.SchemeGroupVersion.WithKind("Secret")
	case *corev1.Service:
		kind = corev1.SchemeGroupVersion.WithKind("Service")
	default:
		return
	}
	typed.GetObjectKind().SetGroupVersionKind(kind)
}

func fail(w http.ResponseWriter, err error) {
	status := apierrors.NewInternalError(err).Status()
	if known, ok := err.(apierrors.APIStatus); ok {
		status = known.Status()
	}
	status.Kind, status.APIVersion = "Status", "v1"
	log.Println("refused:", status.Message)
	send(w, int(status.Code), &status)
}
