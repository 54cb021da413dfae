// Prints the ranges of code points that Go's strconv.IsPrint accepts, as the Rust table of printable.rs.
package main

import (
	"fmt"
	"strconv"
)

func main() {
	fmt.Println("//! Generated: the code points that Go's `strconv.IsPrint` calls printable, as sorted inclusive ranges.")
	fmt.Println("//!")
	fmt.Println("//! Made by `go run printable.go > printable.rs` beside this file, with a Go toolchain of Unicode 15 (Go 1.21")
	fmt.Println("//! to 1.26, which is what restic 0.19 is built with). Do not edit by hand.")
	fmt.Println()
	fmt.Println("/// Sorted, disjoint, inclusive ranges of printable code points.")
	fmt.Println("#[rustfmt::skip]")
	fmt.Println("pub(super) const PRINTABLE: &[(u32, u32)] = &[")
	start, column := -1, 0
	for r := 0; r <= 0x110000; r++ {
		printable := r <= 0x10ffff && strconv.IsPrint(rune(r))
		if printable && start < 0 {
			start = r
		}
		if !printable && start >= 0 {
			if column == 0 {
				fmt.Print("   ")
			}
			fmt.Printf(" (0x%x, 0x%x),", start, r-1)
			if column++; column == 6 {
				fmt.Println()
				column = 0
			}
			start = -1
		}
	}
	if column != 0 {
		fmt.Println()
	}
	fmt.Println("];")
}
