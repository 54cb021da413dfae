package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// copyTree copies what is in one folder, and the folder's own owner and mode, into another that is there: links,
// holes, owners, times, ACLs and extended attributes too, and anything that cannot be copied is an error.
func copyTree(from, to string) error {
	cp := exec.Command("cp", "--recursive", "--no-dereference", "--reflink=auto", "--sparse=auto",
		"--preserve=mode,ownership,timestamps,links,xattr", from+"/.", to)
	if out, err := cp.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy %s: %w: %s", from, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// copyFrozen copies a volume while the pods that have it mounted stand still, so that the copy shows it as it was at
// one moment.
func copyFrozen(publications []publication, from, to string) error {
	thaw, err := freeze(publications)
	defer thaw()
	if err != nil {
		return err
	}
	return copyTree(from, to)
}

// podOfTarget finds a pod's UID in the path where its kubelet wants a volume.
var podOfTarget = regexp.MustCompile(`/pods/([0-9a-f-]{36})/volumes/`)

// freeze stops the pods of publications by the kernel's freezer. What it returns lets them go on and must be called,
// after an error too. A pod without a cgroup, which has not started or has ended, writes nothing.
func freeze(publications []publication) (thaw func(), err error) {
	var frozen []string
	thaw = func() {
		for _, group := range frozen {
			if err := setFrozen(group, false); err != nil {
				log.Print(err)
			}
		}
	}
	pods := map[string]bool{}
	for _, p := range publications {
		if match := podOfTarget.FindStringSubmatch(p.Target); match != nil {
			pods["pod"+match[1]] = true
		}
	}
	if len(pods) == 0 {
		return thaw, nil
	}
	groups, err := groupsOf(pods)
	if err != nil {
		return thaw, err
	}
	for _, group := range groups {
		frozen = append(frozen, group)
		if err := setFrozen(group, true); err != nil {
			return thaw, err
		}
	}
	return thaw, nil
}

const (
	groupsV1 = "/sys/fs/cgroup/freezer"
	groupsV2 = "/sys/fs/cgroup"
)

func groupsOf(pods map[string]bool) ([]string, error) {
	root := groupsV1
	if _, err := os.Stat(root); err != nil {
		root = groupsV2
	}
	var groups []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist): // ended while we looked
			return nil
		case err != nil:
			return err
		case entry.IsDir() && pods[entry.Name()]:
			groups = append(groups, path)
			return fs.SkipDir
		default:
			return nil
		}
	})
	return groups, err
}

// setFrozen stops a cgroup or lets it go on, and waits until it has stopped. One that has gone is no error.
func setFrozen(group string, stop bool) error {
	file, word, look, seen := "freezer.state", "THAWED", "freezer.state", "FROZEN"
	if stop {
		word = "FROZEN"
	}
	if !strings.HasPrefix(group, groupsV1) {
		file, word, look, seen = "cgroup.freeze", "0", "cgroup.events", "frozen 1"
		if stop {
			word = "1"
		}
	}
	for start := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		err := os.WriteFile(filepath.Join(group, file), []byte(word), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot write %s to the freezer of %s: %w", word, group, err)
		}
		if !stop {
			return nil
		}
		state, err := os.ReadFile(filepath.Join(group, look))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(state), seen) {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Since(start) > 10*time.Second {
			return fmt.Errorf("%s does not stand still", group)
		}
	}
}

// isMounted says whether something is mounted at exactly this path.
func isMounted(path string) (bool, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// ID, parent, device, root, mount point, …; spaces and the like are written as octal numbers.
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && octal.Replace(fields[4]) == path {
			return true, nil
		}
	}
	return false, lines.Err()
}

var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
