package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const mebibyte = 1 << 20

// client calls a driver of its own.
type client struct {
	*testing.T
	csi.ControllerClient
	csi.NodeClient
	root, faults string
}

func connect(t *testing.T) client {
	socket, faults := start(t)
	connection := dial(t, socket)
	return client{t, csi.NewControllerClient(connection), csi.NewNodeClient(connection), filepath.Dir(socket), faults}
}

func mode(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
}

var readWriteOnce = mode(csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER)

func (c client) volume(name string, class map[string]string) error {
	_, err := c.CreateVolume(context.Background(), &csi.CreateVolumeRequest{
		Name: name, Parameters: class, VolumeCapabilities: []*csi.VolumeCapability{readWriteOnce},
		CapacityRange: &csi.CapacityRange{RequiredBytes: mebibyte},
	})
	return err
}

func (c client) snapshot(name, volume string, class map[string]string) error {
	_, err := c.CreateSnapshot(context.Background(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume, Parameters: class})
	return err
}

func (c client) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c client) wants(code codes.Code, err error) {
	c.Helper()
	if status.Code(err) != code {
		c.Fatalf("%v was expected, not %v", code, err)
	}
}

func (c client) fault(name string) {
	c.Helper()
	file := filepath.Join(c.faults, name)
	c.must(os.MkdirAll(filepath.Dir(file), 0o755))
	c.must(os.WriteFile(file, nil, 0o644))
}

func TestFaultsOfAClass(t *testing.T) {
	c := connect(t)
	c.wants(codes.Internal, c.volume("failed", map[string]string{"fail-create-volume": "true"}))
	c.wants(codes.InvalidArgument, c.volume("slip", map[string]string{"fail-create-volumes": "true"}))
	c.wants(codes.InvalidArgument, c.volume("slip", map[string]string{"slow-create-volume": "soon"}))

	c.must(c.volume("plain", nil))
	c.wants(codes.FailedPrecondition, c.snapshot("refused", "plain", map[string]string{"refuse-snapshots": "true"}))
	c.must(c.snapshot("taken", "plain", nil))
	c.must(c.volume("without-snapshots", map[string]string{"refuse-snapshots": "true", "fail-delete-volume": "true"}))
	c.wants(codes.FailedPrecondition, c.snapshot("refused", "without-snapshots", nil))
	_, err := c.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: "without-snapshots"})
	c.wants(codes.Internal, err)
}

func TestFaultsOfFilesBeginAndEndWithThem(t *testing.T) {
	c := connect(t)
	c.fault("fail-create-volume")
	c.wants(codes.Internal, c.volume("data", nil))
	c.must(os.Remove(filepath.Join(c.faults, "fail-create-volume")))
	c.must(c.volume("data", nil))

	c.fault("fail-create-volumes")
	if err := c.volume("other", nil); err == nil || !strings.Contains(err.Error(), `there is no fault "fail-create-volumes"`) {
		t.Fatal(err)
	}
}

func TestFaultsOfANamespaceAreItsOwn(t *testing.T) {
	c := connect(t)
	c.fault("one/fail-create-volume")
	c.wants(codes.Internal, c.volume("a", map[string]string{"csi.storage.k8s.io/pvc/namespace": "one"}))
	c.must(c.volume("b", map[string]string{"csi.storage.k8s.io/pvc/namespace": "two"}))
	c.must(c.volume("c", nil))
}

func TestASlowCallIsFinishedThoughItsCallerGaveUp(t *testing.T) {
	c := connect(t)
	c.must(c.volume("data", nil))
	request := &csi.CreateSnapshotRequest{Name: "late", SourceVolumeId: "data", Parameters: map[string]string{"slow-create-snapshot": "500ms"}}
	hurry, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.CreateSnapshot(hurry, request)
	c.wants(codes.DeadlineExceeded, err)
	_, err = c.CreateSnapshot(context.Background(), request)
	c.wants(codes.Aborted, err)
	// Each repetition would be cut off as the first was, and the work would never be done.
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		hurry, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err = c.CreateSnapshot(hurry, request)
		cancel()
	}
	c.must(err)
	slow := map[string]string{"slow-create-volume": "100ms"}
	c.must(c.volume("slow", slow))
	start := time.Now()
	c.must(c.volume("slow", slow))
	if time.Since(start) > 90*time.Millisecond {
		t.Error("what is done takes its time again")
	}
}

// A volume's mount is in the driver's mount namespace alone: its data is looked at where the driver keeps it.
func TestSnapshotsAndClonesHoldWhatTheVolumeHeld(t *testing.T) {
	c := connect(t)
	c.must(c.volume("data", nil))
	data := filepath.Join(c.root, "storage/volumes/data/data")
	c.must(os.WriteFile(filepath.Join(data, "file"), []byte("before"), 0o640))
	c.must(os.Chown(filepath.Join(data, "file"), 1000, 2000))
	c.must(os.Link(filepath.Join(data, "file"), filepath.Join(data, "hard link")))
	c.must(os.Symlink("nowhere", filepath.Join(data, "link")))
	c.must(syscall.Setxattr(filepath.Join(data, "file"), "user.colour", []byte("blue"), 0))
	c.must(os.WriteFile(filepath.Join(data, "sparse"), nil, 0o644))
	c.must(os.Truncate(filepath.Join(data, "sparse"), 1<<30))
	c.must(os.Chmod(data, 0o770|os.ModeSetgid))
	c.must(c.snapshot("then", "data", nil))
	tree := func(folder string) string {
		list := exec.Command("sh", "-c", `find . -printf '%P %y %m %U %G %s %n %T@ %l\n' | sort && getfattr -d -R . | sort && cat file`)
		list.Dir = folder
		text, err := list.CombinedOutput()
		c.must(err)
		return string(text)
	}
	before := tree(data)
	c.must(os.WriteFile(filepath.Join(data, "file"), []byte("after"), 0o640))

	from := func(name string, source *csi.VolumeContentSource, size int64) error {
		_, err := c.CreateVolume(context.Background(), &csi.CreateVolumeRequest{
			Name: name, VolumeCapabilities: []*csi.VolumeCapability{readWriteOnce}, VolumeContentSource: source,
			CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		})
		return err
	}
	snapshot := &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: "then"}}}
	volume := &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: "data"}}}
	c.wants(codes.OutOfRange, from("small", snapshot, mebibyte-1))
	c.must(from("restored", snapshot, mebibyte))
	c.must(from("clone", volume, mebibyte))
	if found := tree(filepath.Join(c.root, "storage/volumes/restored/data")); found != before {
		t.Errorf("the restored volume differs:\n%s\nfrom\n%s", found, before)
	}
	if found, wanted := tree(filepath.Join(c.root, "storage/volumes/clone/data")), tree(data); found != wanted {
		t.Errorf("the clone differs:\n%s\nfrom\n%s", found, wanted)
	}
	var sparse syscall.Stat_t
	c.must(syscall.Stat(filepath.Join(c.root, "storage/volumes/restored/data/sparse"), &sparse))
	if sparse.Blocks*512 > mebibyte {
		t.Errorf("the sparse file takes %d blocks", sparse.Blocks)
	}

	for _, id := range []string{"data", "restored", "clone"} {
		_, err := c.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: id})
		c.must(err)
	}
	_, err := c.DeleteSnapshot(context.Background(), &csi.DeleteSnapshotRequest{SnapshotId: "then"})
	c.must(err)
	for _, kind := range []string{"volumes", "snapshots"} {
		if left, err := os.ReadDir(filepath.Join(c.root, "storage", kind)); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", kind, left, err)
		}
	}
}

func TestAVolumeIsMountedOnOneNodeUnlessItMayBeShared(t *testing.T) {
	c := connect(t)
	c.must(c.volume("data", nil))
	publish := func(target string, capability *csi.VolumeCapability) error {
		_, err := c.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{
			VolumeId: "data", TargetPath: filepath.Join(c.root, target), VolumeCapability: capability,
		})
		return err
	}
	c.must(publish("first", readWriteOnce))
	c.must(publish("first", readWriteOnce))
	c.must(publish("second", readWriteOnce))
	c.wants(codes.FailedPrecondition, publish("third", mode(csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER)))
	_, err := c.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: "data"})
	c.wants(codes.FailedPrecondition, err)

	// What the driver of the other node would have written.
	records := filepath.Join(c.root, "storage/volumes/data/published")
	c.must(writeRecord(filepath.Join(records, "far.json"), publication{Node: "node-1", Target: "/first"}))
	c.wants(codes.FailedPrecondition, publish("third", readWriteOnce))
	c.must(publish("third", mode(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)))
	c.must(os.Remove(filepath.Join(records, "far.json")))

	for _, target := range []string{"first", "second", "third", "never"} {
		_, err := c.NodeUnpublishVolume(context.Background(), &csi.NodeUnpublishVolumeRequest{VolumeId: "data", TargetPath: filepath.Join(c.root, target)})
		c.must(err)
	}
	_, err = c.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: "data"})
	c.must(err)
}

func TestAnEnforcedCapacityCanBeFilledAndExpanded(t *testing.T) {
	c := connect(t)
	c.must(c.volume("data", map[string]string{"enforceCapacity": "true"}))
	target := filepath.Join(c.root, "target")
	_, err := c.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{VolumeId: "data", TargetPath: target, VolumeCapability: readWriteOnce})
	c.must(err)
	total := func() int64 {
		stats, err := c.NodeGetVolumeStats(context.Background(), &csi.NodeGetVolumeStatsRequest{VolumeId: "data", VolumePath: target})
		c.must(err)
		return stats.Usage[0].Total
	}
	if total() != mebibyte {
		t.Fatalf("%d bytes", total())
	}
	_, err = c.ControllerExpandVolume(context.Background(), &csi.ControllerExpandVolumeRequest{VolumeId: "data", CapacityRange: &csi.CapacityRange{RequiredBytes: 3 * mebibyte}})
	c.must(err)
	_, err = c.NodeExpandVolume(context.Background(), &csi.NodeExpandVolumeRequest{VolumeId: "data", VolumePath: target})
	c.must(err)
	if total() != 3*mebibyte {
		t.Fatalf("%d bytes", total())
	}
	_, err = c.NodeUnpublishVolume(context.Background(), &csi.NodeUnpublishVolumeRequest{VolumeId: "data", TargetPath: target})
	c.must(err)
	_, err = c.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: "data"})
	c.must(err)
	if left, err := os.ReadDir(filepath.Join(c.root, "storage/volumes")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
