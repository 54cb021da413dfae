// Command csi is a CSI driver for test clusters: volumes and snapshots are directories below one folder that all nodes
// share. It is real enough to sit behind the real csi-provisioner, csi-snapshotter and csi-resizer, keeps the rules of
// the CSI specification, and can be told to fail, to be slow and to refuse snapshots. README.md says how.
//
// It is never for data that anybody needs: nothing is synced to disk and nothing keeps two clusters from one folder.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driverName is what StorageClasses and VolumeSnapshotClasses name.
const driverName = "dir.holdfast.test"

type settings struct {
	root, socket, registration, node, faults string
}

func main() {
	var s settings
	flag.StringVar(&s.root, "root", "", "folder of volumes and snapshots, a shared mount of all nodes")
	flag.StringVar(&s.socket, "socket", "", "unix socket on which to serve CSI")
	flag.StringVar(&s.registration, "registration", "", "unix socket in the kubelet's plugins_registry; none registers nowhere")
	flag.StringVar(&s.node, "node", "", "name of this node")
	flag.StringVar(&s.faults, "faults", "", "folder of faults to make, see README.md; none makes none")
	flag.Parse()
	if flag.NArg() > 0 || s.root == "" || s.socket == "" || s.node == "" {
		fmt.Fprintln(os.Stderr, "csi: --root, --socket and --node are required, and nothing but flags")
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(s); err != nil {
		log.Fatal(err)
	}
}

// serve runs until SIGTERM or SIGINT.
func serve(s settings) error {
	disk, err := openStore(s.root, s.node)
	if err != nil {
		return err
	}
	driver := grpc.NewServer(grpc.UnaryInterceptor(logged))
	faults := faults{folder: s.faults}
	csi.RegisterIdentityServer(driver, identity{})
	csi.RegisterControllerServer(driver, &controller{store: disk, faults: faults})
	csi.RegisterNodeServer(driver, &node{store: disk, faults: faults, name: s.node})

	ended := make(chan error, 3)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		ended <- nil
	}()
	if err := listen(driver, s.socket, ended); err != nil {
		return err
	}
	if s.registration != "" {
		kubelet := grpc.NewServer()
		registration.RegisterRegistrationServer(kubelet, registrar{endpoint: s.socket})
		if err := listen(kubelet, s.registration, ended); err != nil {
			return err
		}
	}
	return <-ended
}

// listen serves on a unix socket in the background, in place of whatever socket an earlier run left there. The socket
// gets its name when it answers: kubelets watch for that name. They look over names that begin with a dot.
func listen(server *grpc.Server, socket string, ended chan<- error) error {
	folder, name := filepath.Split(socket)
	unnamed := filepath.Join(folder, "."+name)
	if err := os.MkdirAll(filepath.Clean(folder), 0o755); err != nil {
		return err
	}
	if err := removeIfThere(unnamed); err != nil {
		return err
	}
	listener, err := net.Listen("unix", unnamed)
	if err != nil {
		return err
	}
	if err := os.Rename(unnamed, socket); err != nil {
		return err
	}
	go func() { ended <- server.Serve(listener) }()
	return nil
}

// logged writes a line for each call that took a while or failed, never what the call held.
func logged(ctx context.Context, request any, call *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	start := time.Now()
	answer, err := handle(ctx, request)
	if took := time.Since(start); err != nil || took > 100*time.Millisecond {
		log.Printf("%s: %s after %s", call.FullMethod, status.Convert(err).String(), took.Round(time.Millisecond))
	}
	return answer, err
}
