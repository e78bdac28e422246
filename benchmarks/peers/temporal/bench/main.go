// The work of the comparison on Temporal: what users of Temporal would write, and a client that waits for results.
//
//	bench ADDRESS namespace                              makes the namespace
//	bench ADDRESS worker                                 runs workflows and activities until it is ended
//	bench ADDRESS chain|fan STEPS IN-FLIGHT for SECONDS  load for some time, or
//	bench ADDRESS chain|fan STEPS IN-FLIGHT count COUNT  so many executions; prints figures as JSON
//
// Every result is compared; the first that is wrong ends the load with exit code 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	queue = "peers"
	// Pollers of the worker: the two of the SDK's default starve this load.
	pollers  = 16
	patience = 120 * time.Second
)

// Work is the input of an execution.
type Work struct{ Number, Steps int }

// AddOne is a step.
func AddOne(_ context.Context, got int) (int, error) { return got + 1, nil }

// Chain runs steps one after the other and gives the number of the execution and the sum of what they gave.
func Chain(ctx workflow.Context, work Work) (int, error) {
	ctx = withOptions(ctx)
	sum := work.Number
	for got := range work.Steps {
		var value int
		if err := workflow.ExecuteActivity(ctx, AddOne, got).Get(ctx, &value); err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, nil
}

// Fan does the same with all steps at once.
func Fan(ctx workflow.Context, work Work) (int, error) {
	ctx = withOptions(ctx)
	steps := make([]workflow.Future, work.Steps)
	for got := range steps {
		steps[got] = workflow.ExecuteActivity(ctx, AddOne, got)
	}
	sum := work.Number
	for _, step := range steps {
		var value int
		if err := step.Get(ctx, &value); err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, nil
}

func withOptions(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
}

// silent drops what the SDK logs: the load's own errors are enough.
type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: bench ADDRESS namespace|worker|chain|fan …")
	}
	options := client.Options{HostPort: args[0], Logger: silent{}}
	switch what := args[1]; what {
	case "namespace":
		return namespace(options)
	case "worker":
		temporal, err := client.Dial(options)
		if err != nil {
			return err
		}
		work := worker.New(temporal, queue, worker.Options{
			MaxConcurrentActivityTaskPollers: pollers,
			MaxConcurrentWorkflowTaskPollers: pollers,
		})
		work.RegisterWorkflowWithOptions(Chain, workflow.RegisterOptions{Name: "chain"})
		work.RegisterWorkflowWithOptions(Fan, workflow.RegisterOptions{Name: "fan"})
		work.RegisterActivity(AddOne)
		return work.Run(worker.InterruptCh())
	case "chain", "fan":
		if len(args) != 6 {
			return errors.New("usage: bench ADDRESS chain|fan STEPS IN-FLIGHT for|count AMOUNT")
		}
		var numbers [3]int
		for i, text := range []string{args[2], args[3], args[5]} {
			var err error
			if numbers[i], err = strconv.Atoi(text); err != nil {
				return err
			}
		}
		temporal, err := client.Dial(options)
		if err != nil {
			return err
		}
		return load(temporal, what, numbers[0], numbers[1], args[4] == "for", numbers[2])
	default:
		return fmt.Errorf("%q is none of namespace, worker, chain, fan", what)
	}
}

func namespace(options client.Options) error {
	namespaces, err := client.NewNamespaceClient(options)
	if err != nil {
		return err
	}
	err = namespaces.Register(context.Background(), &workflowservice.RegisterNamespaceRequest{
		Namespace:                        "default",
		WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	var exists *serviceerror.NamespaceAlreadyExists
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

func load(temporal client.Client, name string, steps, inFlight int, timed bool, amount int) error {
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	var next atomic.Int64
	var failed atomic.Bool
	var lock sync.Mutex
	var latencies []time.Duration
	var failure error
	var all sync.WaitGroup
	begun := time.Now()
	more := func(number int) bool {
		if timed {
			return time.Since(begun) < time.Duration(amount)*time.Second
		}
		return number < amount
	}
	for range inFlight {
		all.Go(func() {
			for !failed.Load() {
				number := int(next.Add(1) - 1)
				if !more(number) {
					return
				}
				asked := time.Now()
				err := execute(temporal, run, name, Work{Number: number, Steps: steps})
				took := time.Since(asked)
				lock.Lock()
				latencies = append(latencies, took)
				if err != nil {
					failed.Store(true)
					failure = err
				}
				lock.Unlock()
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	if failure != nil {
		return failure
	}
	slices.Sort(latencies)
	at := func(share float64) float64 {
		return float64(latencies[int(float64(len(latencies)-1)*share)].Microseconds()) / 1e3
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"executions": len(latencies), "seconds": took.Seconds(),
		"p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1),
	})
}

func execute(temporal client.Client, run, name string, work Work) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	options := client.StartWorkflowOptions{ID: run + "-" + strconv.Itoa(work.Number), TaskQueue: queue}
	execution, err := temporal.ExecuteWorkflow(ctx, options, name, work)
	if err != nil {
		return err
	}
	var got int
	if err := execution.Get(ctx, &got); err != nil {
		return err
	}
	if want := work.Number + work.Steps*(work.Steps+1)/2; got != want {
		return fmt.Errorf("execution %d gave %d, which should be %d", work.Number, got, want)
	}
	return nil
}
