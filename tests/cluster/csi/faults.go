package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// operation is one of the calls that faults can be made in.
type operation string

const (
	createVolume    operation = "create-volume"
	deleteVolume    operation = "delete-volume"
	expandVolume    operation = "expand-volume"
	createSnapshot  operation = "create-snapshot"
	deleteSnapshot  operation = "delete-snapshot"
	publishVolume   operation = "publish-volume"
	unpublishVolume operation = "unpublish-volume"
)

var operations = []operation{
	createVolume, deleteVolume, expandVolume, createSnapshot, deleteSnapshot, publishVolume, unpublishVolume,
}

// refuseSnapshots is the fault that is none of one operation: what a driver without snapshots answers.
const refuseSnapshots = "refuse-snapshots"

// faults makes those faults that a class or a file asks for.
type faults struct {
	// folder holds a file for each fault that all volumes suffer, and a folder of such files for each namespace;
	// empty when there are only the faults of classes.
	folder string
}

// make delays or fails an operation on something that belongs to a claim or snapshot of namespace. wanted holds the
// faults of its class, already checked. It is called when there is work to do: a repeated call finds the work done.
func (f faults) make(op operation, namespace string, wanted map[string]string) error {
	for _, folder := range f.folders(namespace) {
		found, err := readFaults(folder)
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		for name, value := range wanted {
			if _, set := found[name]; !set {
				found[name] = value
			}
		}
		wanted = found
	}
	// The wait outlives a caller that gives up: it is the storage that is slow, and a caller that comes again is told
	// that the work is under way.
	if value, ok := wanted["slow-"+string(op)]; ok {
		wait, err := time.ParseDuration(value)
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		time.Sleep(wait)
	}
	if _, ok := wanted["fail-"+string(op)]; ok {
		return status.Errorf(codes.Internal, "%s fails because a test wants it", op)
	}
	if _, ok := wanted[refuseSnapshots]; ok && op == createSnapshot {
		return status.Error(codes.FailedPrecondition, "this storage takes no snapshots because a test wants it")
	}
	return nil
}

func (f faults) folders(namespace string) []string {
	switch {
	case f.folder == "":
		return nil
	case namespace == "":
		return []string{f.folder}
	default:
		return []string{f.folder, filepath.Join(f.folder, filepath.Base(namespace))}
	}
}

// readFaults reads a folder whose files are named `fail-…`, `refuse-snapshots` or `slow-…=DURATION`. What they hold
// does not matter. A folder that is not there asks for nothing.
func readFaults(folder string) (map[string]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	found := map[string]string{}
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		name, value, given := strings.Cut(entry.Name(), "=")
		if !given {
			value = "true"
		}
		if err := checkFault(name, value); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(folder, entry.Name()), err)
		}
		found[name] = value
	}
	return found, nil
}

// checkFault refuses what is no fault, so that a test with a slip of the pen does not pass for want of its fault.
func checkFault(name, value string) error {
	kind, op, _ := strings.Cut(name, "-")
	known := slices.Contains(operations, operation(op))
	switch {
	case name == refuseSnapshots, kind == "fail" && known:
		if value != "true" {
			return fmt.Errorf("%s is there (\"true\") or not, and cannot be %q", name, value)
		}
		return nil
	case kind == "slow" && known:
		if wait, err := time.ParseDuration(value); err != nil || wait < 0 {
			return fmt.Errorf("%s takes a duration such as 5s, not %q", name, value)
		}
		return nil
	default:
		return fmt.Errorf("there is no fault %q", name)
	}
}
