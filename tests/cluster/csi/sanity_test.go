package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// asDriver makes this test program the driver itself: mounting needs a mount namespace, and thus a process, of its own.
const asDriver = "RUN_AS_CSI_DRIVER"

func TestMain(m *testing.M) {
	if os.Getenv(asDriver) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs a driver until the test ends, and returns the socket and the folder of its faults.
func start(t *testing.T) (socket, faults string) {
	t.Helper()
	root := t.TempDir()
	socket, faults = filepath.Join(root, "csi.sock"), filepath.Join(root, "faults")
	driver := exec.Command(os.Args[0], "--root", filepath.Join(root, "storage"), "--socket", socket, "--node", "node-0", "--faults", faults)
	driver.Env = append(os.Environ(), asDriver+"=1")
	driver.Stdout, driver.Stderr = os.Stdout, os.Stderr
	driver.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := driver.Start(); err != nil {
		t.Fatalf("cannot start the driver, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := driver.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := driver.Wait(); err != nil {
			t.Errorf("the driver did not end well: %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return socket, faults // it has its name once it answers
		}
		if time.Now().After(deadline) {
			t.Fatal("the driver does not listen")
		}
	}
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// The suite that the Kubernetes project gives to the authors of drivers.
func TestTheRulesOfTheSpecificationAreKept(t *testing.T) {
	socket, _ := start(t)
	config := sanity.NewTestConfig()
	config.Address = socket
	config.TargetPath = filepath.Join(t.TempDir(), "target")
	config.StagingPath = filepath.Join(t.TempDir(), "staging")
	config.TestVolumeSize = 8 << 20
	config.TestVolumeExpandSize = 16 << 20
	sanity.Test(t, config)
}
