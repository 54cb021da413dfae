package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// store is the folder that all nodes share:
//
//	volumes/ID/volume.json       what is known of a volume
//	volumes/ID/data/             what is in it; a tmpfs when its capacity is enforced
//	volumes/ID/published/*.json  where it is mounted
//	snapshots/ID/snapshot.json   what is known of a snapshot
//	snapshots/ID/data/           what was in the volume
//
// Volumes and snapshots appear whole: they are made as `.new-ID` and renamed. They vanish whole: they are renamed to
// `.old-ID` and then removed. What a crash leaves is removed by the next call for the same ID.
//
// Each node may have a mount namespace of its own. The folder is a shared mount in all of them, so that a tmpfs below it
// is in all of them.
type store struct {
	root string
	node string
	mu   sync.Mutex
	busy map[string]bool
}

// volume is what is known of a volume beside its data.
type volume struct {
	Namespace       string            `json:"namespace,omitempty"` // of its claim
	CapacityBytes   int64             `json:"capacityBytes"`
	EnforceCapacity bool              `json:"enforceCapacity,omitempty"`
	Source          string            `json:"source,omitempty"` // `volume/ID` or `snapshot/ID`
	Faults          map[string]string `json:"faults,omitempty"` // of its StorageClass
}

// snapshot is what is known of a snapshot beside its data.
type snapshot struct {
	Namespace     string            `json:"namespace,omitempty"` // of its VolumeSnapshot
	Volume        string            `json:"volume"`
	CapacityBytes int64             `json:"capacityBytes"` // of the volume: what a restore needs
	Created       time.Time         `json:"created"`
	Faults        map[string]string `json:"faults,omitempty"` // of its VolumeSnapshotClass
}

// publication is one place where a volume is mounted.
type publication struct {
	Node   string `json:"node"`
	Target string `json:"target"`
}

var safeID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func openStore(root, node string) (*store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{"volumes", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(root, kind), 0o755); err != nil {
			return nil, err
		}
	}
	s := &store{root: root, node: node, busy: map[string]bool{}}
	return s, s.forgetMounts()
}

func (s *store) volumeFolder(id string) string   { return filepath.Join(s.root, "volumes", id) }
func (s *store) snapshotFolder(id string) string { return filepath.Join(s.root, "snapshots", id) }
func (s *store) volumeData(id string) string     { return filepath.Join(s.volumeFolder(id), "data") }
func (s *store) snapshotData(id string) string   { return filepath.Join(s.snapshotFolder(id), "data") }

// begin takes the turn on a volume or snapshot; a second call for the same one while it works is told to come again.
func (s *store) begin(id string) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[id] {
		return nil, status.Errorf(codes.Aborted, "another call is working on %s", id)
	}
	s.busy[id] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.busy, id)
	}, nil
}

// volume reads what is known; a volume that is not there, or whose ID could be none of ours, is NotFound.
func (s *store) volume(id string) (volume, error) {
	var v volume
	return v, s.read("volume", s.volumeFolder(id), id, &v)
}

func (s *store) snapshot(id string) (snapshot, error) {
	var found snapshot
	return found, s.read("snapshot", s.snapshotFolder(id), id, &found)
}

func (s *store) read(kind, folder, id string, into any) error {
	if !safeID.MatchString(id) {
		return status.Errorf(codes.NotFound, "there is no %s %q", kind, id)
	}
	text, err := os.ReadFile(filepath.Join(folder, kind+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return status.Errorf(codes.NotFound, "there is no %s %s", kind, id)
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return status.Errorf(codes.Internal, "cannot read %s %s: %v", kind, id, err)
	}
	return nil
}

// create makes `folder` with a record and an empty `data`, which fill then fills; nothing is left when it fails.
func create(folder, kind string, record any, fill func(data string) error) error {
	unfinished := filepath.Join(filepath.Dir(folder), ".new-"+filepath.Base(folder))
	data := filepath.Join(unfinished, "data")
	if err := discard(unfinished); err != nil {
		return err
	}
	err := os.MkdirAll(data, 0o755)
	if err == nil {
		err = fill(data)
	}
	if err == nil {
		err = writeRecord(filepath.Join(unfinished, kind+".json"), record)
	}
	if err == nil {
		err = os.Rename(unfinished, folder)
	}
	if err != nil {
		return errors.Join(err, discard(unfinished))
	}
	return nil
}

// remove ends a volume or snapshot; one that is not there is no error.
func remove(folder string) error {
	old := filepath.Join(filepath.Dir(folder), ".old-"+filepath.Base(folder))
	if err := discard(old); err != nil {
		return err
	}
	if err := os.Rename(folder, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return discard(old)
}

// discard removes a folder made by create, the tmpfs in it too.
func discard(folder string) error {
	if err := unmount(filepath.Join(folder, "data")); err != nil {
		return err
	}
	return os.RemoveAll(folder)
}

func writeRecord(file string, record any) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	unfinished := file + ".new"
	if err := os.WriteFile(unfinished, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, file)
}

// publications are the places where a volume is mounted, on any node.
func (s *store) publications(id string) ([]publication, error) {
	files, err := filepath.Glob(filepath.Join(s.volumeFolder(id), "published", "*.json"))
	if err != nil {
		return nil, err
	}
	var found []publication
	for _, file := range files {
		p, err := readPublication(file)
		if err != nil {
			return nil, err
		}
		if p != nil {
			found = append(found, *p)
		}
	}
	return found, nil
}

func readPublication(file string) (*publication, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) { // unmounted meanwhile
		return nil, nil
	}
	var p publication
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return &p, nil
}

// forgetMounts removes the records of mounts that this node does not have any more, because it was started anew.
func (s *store) forgetMounts() error {
	files, err := filepath.Glob(filepath.Join(s.root, "volumes", "*", "published", "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		p, err := readPublication(file)
		if err != nil {
			return err
		}
		if p == nil || p.Node != s.node {
			continue
		}
		mounted, err := isMounted(p.Target)
		if err == nil && !mounted {
			err = removeIfThere(file)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmount ends every mount at path, if there are any.
func unmount(path string) error {
	for {
		err := syscall.Unmount(path, 0)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot unmount %s: %w", path, err)
		}
	}
}
