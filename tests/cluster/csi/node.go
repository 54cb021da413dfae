package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// node mounts volumes on one node.
type node struct {
	csi.UnimplementedNodeServer
	store  *store
	faults faults
	name   string
}

func (n *node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: n.name}, nil
}

func (*node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var capabilities []*csi.NodeServiceCapability
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		capabilities = append(capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: kind},
		}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: capabilities}, nil
}

func (n *node) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	id, target := r.GetVolumeId(), filepath.Clean(r.GetTargetPath())
	if id == "" || r.GetTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume ID or the target path is missing")
	}
	if err := checkCapabilities([]*csi.VolumeCapability{r.GetVolumeCapability()}); err != nil {
		return nil, err
	}
	end, err := n.store.begin(id)
	if err != nil {
		return nil, err
	}
	defer end()
	found, err := n.store.volume(id)
	if err != nil {
		return nil, err
	}
	if found.EnforceCapacity {
		if mounted, err := isMounted(n.store.volumeData(id)); err != nil || !mounted {
			return nil, status.Errorf(codes.Internal, "volume %s has lost its capacity and its data: was the cluster started anew, or is %s no shared mount? %v", id, n.store.root, err)
		}
	}
	publications, err := n.store.publications(id)
	if err != nil {
		return nil, internal("cannot tell where volume %s is mounted: %v", id, err)
	}
	for _, p := range publications {
		if p.Node == n.name && p.Target == target {
			if mounted, err := isMounted(target); err != nil || mounted {
				return &csi.NodePublishVolumeResponse{}, err
			}
			continue // a crash came between the record and the mount
		}
		if !mayShare(r.GetVolumeCapability().GetAccessMode().GetMode(), p.Node == n.name) {
			return nil, status.Errorf(codes.FailedPrecondition, "volume %s is mounted on %s and may not be mounted here as well", id, p.Node)
		}
	}
	if err := n.faults.make(publishVolume, found.Namespace, found.Faults); err != nil {
		return nil, err
	}
	if err := n.mount(id, target, r.GetReadonly()); err != nil {
		return nil, internal("cannot mount volume %s: %v", id, err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// mayShare says whether a volume that is mounted already, on this node or on another, may be mounted once more.
func mayShare(mode csi.VolumeCapability_AccessMode_Mode, here bool) bool {
	switch mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER:
		return false
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:
		return here
	default:
		return true
	}
}

// mount records the publication first: a record without its mount is put right by the next call, a mount without its
// record would let the volume be deleted or mounted twice.
func (n *node) mount(id, target string, readOnly bool) error {
	record := n.record(id, target)
	if err := os.MkdirAll(filepath.Dir(record), 0o755); err != nil {
		return err
	}
	if err := writeRecord(record, publication{Node: n.name, Target: target}); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	if err := syscall.Mount(n.store.volumeData(id), target, "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	if err := syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return errors.Join(err, unmount(target))
	}
	return nil
}

func (n *node) record(id, target string) string {
	sum := sha256.Sum256([]byte(n.name + "\n" + target))
	return filepath.Join(n.store.volumeFolder(id), "published", hex.EncodeToString(sum[:8])+".json")
}

func (n *node) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	id, target := r.GetVolumeId(), filepath.Clean(r.GetTargetPath())
	if id == "" || r.GetTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume ID or the target path is missing")
	}
	end, err := n.store.begin(id)
	if err != nil {
		return nil, err
	}
	defer end()
	found, err := n.store.volume(id)
	if err != nil && status.Code(err) != codes.NotFound {
		return nil, err
	}
	mounted, err := isMounted(target)
	if err == nil && mounted {
		if err := n.faults.make(unpublishVolume, found.Namespace, found.Faults); err != nil {
			return nil, err
		}
		err = unmount(target)
	}
	if err == nil {
		err = removeIfThere(target)
	}
	if err == nil && safeID.MatchString(id) {
		err = removeIfThere(n.record(id, target))
	}
	if err != nil {
		return nil, internal("cannot unmount volume %s: %v", id, err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// NodeExpandVolume gives a volume whose capacity is enforced the size that the controller has recorded.
func (n *node) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	id := r.GetVolumeId()
	if id == "" || r.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume ID or its path is missing")
	}
	found, err := n.store.volume(id)
	if err != nil {
		return nil, err
	}
	if err := publishedAt(id, r.GetVolumePath()); err != nil {
		return nil, err
	}
	if found.EnforceCapacity {
		if err := limitSize(n.store.volumeData(id), found.CapacityBytes, syscall.MS_REMOUNT); err != nil {
			return nil, internal("cannot expand volume %s: %v", id, err)
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: found.CapacityBytes}, nil
}

// NodeGetVolumeStats counts what the file system counts: the volume's own when its capacity is enforced, else that of
// the folder that all volumes share.
func (n *node) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	id, path := r.GetVolumeId(), r.GetVolumePath()
	if id == "" || path == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume ID or its path is missing")
	}
	if _, err := n.store.volume(id); err != nil {
		return nil, err
	}
	if err := publishedAt(id, path); err != nil {
		return nil, err
	}
	var counts syscall.Statfs_t
	if err := syscall.Statfs(path, &counts); err != nil {
		return nil, internal("cannot count what volume %s holds: %v", id, err)
	}
	block := int64(counts.Bsize)
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit:      csi.VolumeUsage_BYTES,
			Total:     int64(counts.Blocks) * block,
			Available: int64(counts.Bavail) * block,
			Used:      int64(counts.Blocks-counts.Bfree) * block,
		},
		{
			Unit:      csi.VolumeUsage_INODES,
			Total:     int64(counts.Files),
			Available: int64(counts.Ffree),
			Used:      int64(counts.Files - counts.Ffree),
		},
	}}, nil
}

func publishedAt(id, path string) error {
	mounted, err := isMounted(filepath.Clean(path))
	if err != nil {
		return internal("cannot tell where volume %s is mounted: %v", id, err)
	}
	if !mounted {
		return status.Error(codes.NotFound, fmt.Sprintf("volume %s is not mounted at %s", id, path))
	}
	return nil
}
