// Command hostile is a client that misbehaves: it sends builds that are made to end, fill, wedge or read a daemon.
//
// It runs COUNT builds, PARALLEL at a time, taking the kinds of its table in turn, and writes a line for each build: kind,
// milliseconds, and the error or "ok". Kinds that must be refused and are not fail the run. What happens to the daemon is
// for the caller to look at.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
)

// target is what an attack has to work with.
type target struct {
	address string
	// port of a registry on the loopback interface that serves broken images and stalls.
	port int
	// folder with a Dockerfile for each archive that is made to hurt.
	files string
	c     *client.Client
	// number of this build, for attacks that must differ from the last one of their kind.
	number int
}

// ending is how a build of a kind may end.
type ending int

const (
	// refused builds end with an error.
	refused ending = iota
	// either way is right: what counts is the daemon afterwards.
	either
)

// attack is one way to misbehave.
type attack struct {
	kind string
	ends ending
	// patience is how long the client stays; it then leaves without a word.
	patience time.Duration
	run      func(context.Context, target) error
}

func main() {
	var t target
	var count, parallel int
	var only string
	flag.StringVar(&t.address, "addr", "", "address of the daemon")
	flag.IntVar(&t.port, "registry", 0, "port of the hostile registry")
	flag.StringVar(&t.files, "files", "", "folder with the archives that are made to hurt")
	flag.IntVar(&count, "count", 22, "how many builds")
	flag.IntVar(&parallel, "parallel", 4, "how many at a time")
	flag.StringVar(&only, "only", "", "kinds to run, separated by commas")
	flag.Parse()
	if err := run(t, count, parallel, only); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(t target, count, parallel int, only string) error {
	attacks := chosen(only)
	if len(attacks) == 0 {
		return fmt.Errorf("no kind of attack is named %q", only)
	}
	c, err := client.New(context.Background(), t.address)
	if err != nil {
		return err
	}
	defer c.Close()
	t.c = c
	numbers := make(chan int)
	go func() {
		defer close(numbers)
		for n := range count {
			numbers <- n
		}
	}()
	var mu sync.Mutex
	var group sync.WaitGroup
	taken := map[string]int{}
	for range parallel {
		group.Go(func() {
			for n := range numbers {
				a := attacks[n%len(attacks)]
				line, ok := one(a, t, n)
				mu.Lock()
				fmt.Println(line)
				if !ok {
					taken[a.kind]++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if len(taken) == 0 {
		return nil
	}
	var names []string
	for name, times := range taken {
		names = append(names, fmt.Sprintf("%s (%d times)", name, times))
	}
	sort.Strings(names)
	return fmt.Errorf("was not refused, or lost the connection: %s", strings.Join(names, ", "))
}

func chosen(only string) []attack {
	if only == "" {
		return attacks
	}
	var some []attack
	for _, a := range attacks {
		for name := range strings.SplitSeq(only, ",") {
			if name == a.kind {
				some = append(some, a)
			}
		}
	}
	return some
}

// one runs a build and says how it ended; false if it had to be refused and was not.
func one(a attack, t target, number int) (string, bool) {
	t.number = number
	ctx, cancel := context.WithTimeout(context.Background(), a.patience)
	defer cancel()
	begun := time.Now()
	err := a.run(ctx, t)
	said := "ok"
	if err != nil {
		said = short(err.Error())
	}
	line := fmt.Sprintf("%s %d ms: %s", a.kind, time.Since(begun).Milliseconds(), said)
	// All builds of a client share its connection, which must outlive what one of them sends.
	lost := err != nil && strings.Contains(err.Error(), "ENHANCE_YOUR_CALM")
	return line, !lost && (err != nil || a.ends == either)
}

func short(text string) string {
	text = strings.ReplaceAll(text, "\n", " ")
	if len(text) > 200 {
		return text[:100] + " … " + text[len(text)-90:]
	}
	return text
}
