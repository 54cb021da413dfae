package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// capacityDefault is what a volume gets when nobody says how large it should be.
const capacityDefault int64 = 1 << 30

// controller makes and removes volumes and snapshots. Only one node's is called, by the sidecars beside it.
//
// A call goes on when its caller has given up: a repeated call is told Aborted while it works, and finds the work done
// afterwards. So nothing that takes long is begun again and again.
type controller struct {
	csi.UnimplementedControllerServer
	store  *store
	faults faults
}

func (*controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	var capabilities []*csi.ControllerServiceCapability
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		capabilities = append(capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: kind},
		}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: capabilities}, nil
}

func (c *controller) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	id := r.GetName()
	if !safeID.MatchString(id) {
		return nil, status.Errorf(codes.InvalidArgument, "%q cannot be the name of a volume", id)
	}
	if err := checkCapabilities(r.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	class, err := readClass(r.GetParameters())
	if err != nil {
		return nil, err
	}
	end, err := c.store.begin(id)
	if err != nil {
		return nil, err
	}
	defer end()
	source, fill, least, err := c.source(r.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}
	required, limit := r.GetCapacityRange().GetRequiredBytes(), r.GetCapacityRange().GetLimitBytes()

	found, err := c.store.volume(id)
	switch {
	case err == nil:
		if found.CapacityBytes < required || limit > 0 && found.CapacityBytes > limit || found.Source != source {
			return nil, status.Errorf(codes.AlreadyExists, "volume %s is there and differs in size or source", id)
		}
	case status.Code(err) == codes.NotFound:
		capacity := required
		if capacity == 0 {
			capacity = max(capacityDefault, least)
		}
		if capacity < least || limit > 0 && capacity > limit {
			return nil, status.Errorf(codes.OutOfRange, "%d bytes are less than the %d of the source, or more than the limit of %d", capacity, least, limit)
		}
		if err := c.faults.make(createVolume, class.namespace, class.faults); err != nil {
			return nil, err
		}
		found = volume{class.namespace, capacity, class.enforceCapacity, source, class.faults}
		err = create(c.store.volumeFolder(id), "volume", found, func(data string) error {
			if found.EnforceCapacity {
				if err := limitSize(data, capacity, 0); err != nil {
					return err
				}
			}
			return fill(data)
		})
		if err != nil {
			return nil, internal("cannot create volume %s: %v", id, err)
		}
	default:
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId: id, CapacityBytes: found.CapacityBytes, ContentSource: r.GetVolumeContentSource(),
	}}, nil
}

// source says what a volume is made from: its name in the record, how to fill the volume, how large it must be at least.
func (c *controller) source(wanted *csi.VolumeContentSource) (name string, fill func(data string) error, least int64, err error) {
	switch {
	case wanted == nil:
		return "", func(data string) error { return os.Chmod(data, 0o755) }, 0, nil
	case wanted.GetSnapshot() != nil:
		id := wanted.GetSnapshot().GetSnapshotId()
		found, err := c.store.snapshot(id)
		return "snapshot/" + id, func(data string) error { return copyTree(c.store.snapshotData(id), data) }, found.CapacityBytes, err
	case wanted.GetVolume() != nil:
		id := wanted.GetVolume().GetVolumeId()
		found, err := c.store.volume(id)
		return "volume/" + id, func(data string) error { return c.copyVolume(id, data) }, found.CapacityBytes, err
	default:
		return "", nil, 0, status.Error(codes.InvalidArgument, "a source is a snapshot or a volume")
	}
}

func (c *controller) copyVolume(id, to string) error {
	publications, err := c.store.publications(id)
	if err != nil {
		return err
	}
	return copyFrozen(publications, c.store.volumeData(id), to)
}

func (c *controller) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id := r.GetVolumeId()
	err := c.delete("volume", id, c.store.volumeFolder(id), func() error {
		found, err := c.store.volume(id)
		if err != nil {
			return err
		}
		if err := c.faults.make(deleteVolume, found.Namespace, found.Faults); err != nil {
			return err
		}
		publications, err := c.store.publications(id)
		if err != nil {
			return internal("cannot tell where volume %s is mounted: %v", id, err)
		}
		if len(publications) > 0 {
			return status.Errorf(codes.FailedPrecondition, "volume %s is mounted on %s", id, publications[0].Node)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// delete removes the folder of a volume or snapshot unless check forbids it; what check does not find is gone already.
func (c *controller) delete(kind, id, folder string, check func() error) error {
	if id == "" {
		return status.Errorf(codes.InvalidArgument, "the %s ID is missing", kind)
	}
	if !safeID.MatchString(id) { // never ours
		return nil
	}
	end, err := c.store.begin(id)
	if err != nil {
		return err
	}
	defer end()
	if err := check(); err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	if err := remove(folder); err != nil {
		return internal("cannot delete %s %s: %v", kind, id, err)
	}
	return nil
}

func (c *controller) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if r.GetVolumeId() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the volume ID or the capabilities are missing")
	}
	if _, err := c.store.volume(r.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := checkCapabilities(r.GetVolumeCapabilities()); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeCapabilities: r.GetVolumeCapabilities(),
	}}, nil
}

// ControllerExpandVolume records the new size; the node makes it so.
func (c *controller) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	id, required, limit := r.GetVolumeId(), r.GetCapacityRange().GetRequiredBytes(), r.GetCapacityRange().GetLimitBytes()
	if id == "" || r.GetCapacityRange() == nil {
		return nil, status.Error(codes.InvalidArgument, "the volume ID or the new size is missing")
	}
	end, err := c.store.begin(id)
	if err != nil {
		return nil, err
	}
	defer end()
	found, err := c.store.volume(id)
	if err != nil {
		return nil, err
	}
	capacity := max(found.CapacityBytes, required)
	if limit > 0 && capacity > limit {
		return nil, status.Errorf(codes.OutOfRange, "volume %s has %d bytes and cannot shrink", id, found.CapacityBytes)
	}
	if capacity > found.CapacityBytes {
		if err := c.faults.make(expandVolume, found.Namespace, found.Faults); err != nil {
			return nil, err
		}
		found.CapacityBytes = capacity
		if err := writeRecord(c.store.volumeFolder(id)+"/volume.json", found); err != nil {
			return nil, internal("cannot record the size of volume %s: %v", id, err)
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: capacity, NodeExpansionRequired: true}, nil
}

func (c *controller) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	id := r.GetName()
	if !safeID.MatchString(id) || r.GetSourceVolumeId() == "" {
		return nil, status.Errorf(codes.InvalidArgument, "%q cannot be the name of a snapshot, or the volume is missing", id)
	}
	class, err := readClass(r.GetParameters())
	if err != nil {
		return nil, err
	}
	end, err := c.store.begin(id)
	if err != nil {
		return nil, err
	}
	defer end()
	found, err := c.store.snapshot(id)
	switch {
	case err == nil:
		if found.Volume != r.GetSourceVolumeId() {
			return nil, status.Errorf(codes.AlreadyExists, "snapshot %s is there and shows volume %s", id, found.Volume)
		}
	case status.Code(err) == codes.NotFound:
		source, err := c.store.volume(r.GetSourceVolumeId())
		if err != nil {
			return nil, err
		}
		// The snapshot suffers from what its volume's class asks for, too; its own class has the last word.
		wanted := maps.Clone(source.Faults)
		if wanted == nil {
			wanted = map[string]string{}
		}
		maps.Copy(wanted, class.faults)
		if class.namespace == "" {
			class.namespace = source.Namespace
		}
		if err := c.faults.make(createSnapshot, class.namespace, wanted); err != nil {
			return nil, err
		}
		found = snapshot{class.namespace, r.GetSourceVolumeId(), source.CapacityBytes, time.Now().UTC(), wanted}
		err = create(c.store.snapshotFolder(id), "snapshot", found, func(data string) error {
			return c.copyVolume(found.Volume, data)
		})
		if err != nil {
			return nil, internal("cannot take snapshot %s: %v", id, err)
		}
	default:
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: found.describe(id)}, nil
}

func (s snapshot) describe(id string) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: id, SourceVolumeId: s.Volume, SizeBytes: s.CapacityBytes, CreationTime: timestamppb.New(s.Created), ReadyToUse: true,
	}
}

func (c *controller) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	id := r.GetSnapshotId()
	err := c.delete("snapshot", id, c.store.snapshotFolder(id), func() error {
		found, err := c.store.snapshot(id)
		if err != nil {
			return err
		}
		return c.faults.make(deleteSnapshot, found.Namespace, found.Faults)
	})
	if err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// ListSnapshots lists in the order of IDs; a token is the ID after which a list goes on.
func (c *controller) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	folders, err := os.ReadDir(c.store.snapshotFolder(""))
	if err != nil {
		return nil, internal("cannot list snapshots: %v", err)
	}
	if token := r.GetStartingToken(); token != "" && !slices.ContainsFunc(folders, func(f os.DirEntry) bool { return f.Name() == token }) {
		return nil, status.Errorf(codes.Aborted, "%q is the token of no list", token)
	}
	answer := &csi.ListSnapshotsResponse{}
	for _, folder := range folders {
		id := folder.Name()
		if strings.HasPrefix(id, ".") || id <= r.GetStartingToken() || r.GetSnapshotId() != "" && id != r.GetSnapshotId() {
			continue
		}
		found, err := c.store.snapshot(id)
		if status.Code(err) == codes.NotFound { // deleted meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if r.GetSourceVolumeId() != "" && found.Volume != r.GetSourceVolumeId() {
			continue
		}
		if entries := answer.Entries; r.GetMaxEntries() > 0 && len(entries) == int(r.GetMaxEntries()) {
			answer.NextToken = entries[len(entries)-1].Snapshot.SnapshotId
			break
		}
		answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: found.describe(id)})
	}
	return answer, nil
}

// class is what the parameters of a StorageClass or VolumeSnapshotClass say.
type class struct {
	namespace       string // of the claim or snapshot
	enforceCapacity bool
	faults          map[string]string
}

func readClass(parameters map[string]string) (class, error) {
	read := class{faults: map[string]string{}}
	for name, value := range parameters {
		switch {
		case name == "csi.storage.k8s.io/pvc/namespace", name == "csi.storage.k8s.io/volumesnapshot/namespace":
			read.namespace = value
		case strings.HasPrefix(name, "csi.storage.k8s.io/"):
		case name == "enforceCapacity":
			if value != "true" && value != "false" {
				return class{}, status.Errorf(codes.InvalidArgument, "enforceCapacity is \"true\" or \"false\", not %q", value)
			}
			read.enforceCapacity = value == "true"
		default:
			if err := checkFault(name, value); err != nil {
				return class{}, status.Errorf(codes.InvalidArgument, "parameter of the class: %v", err)
			}
			read.faults[name] = value
		}
	}
	return read, nil
}

// checkCapabilities refuses block devices, of which directories are none.
func checkCapabilities(capabilities []*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return status.Error(codes.InvalidArgument, "the capabilities are missing")
	}
	for _, capability := range capabilities {
		if capability.GetMount() == nil {
			return status.Error(codes.InvalidArgument, "a volume is a file system and cannot be a block device")
		}
		if capability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN {
			return status.Error(codes.InvalidArgument, "the access mode is missing")
		}
	}
	return nil
}

// limitSize makes a folder a tmpfs of so many bytes, or with MS_REMOUNT changes how many it has.
func limitSize(data string, bytes int64, flags uintptr) error {
	return syscall.Mount("tmpfs", data, "tmpfs", flags, fmt.Sprintf("size=%d,mode=0755", bytes))
}

// internal gives an error the code of the storage's own mistakes; a full volume has one of its own.
func internal(format string, arguments ...any) error {
	code := codes.Internal
	if text := fmt.Sprintf(format, arguments...); strings.Contains(text, syscall.ENOSPC.Error()) {
		code = codes.ResourceExhausted
	}
	return status.Errorf(code, format, arguments...)
}
