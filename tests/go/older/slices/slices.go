// Package slices stands in for that of Go 1.21 where the distribution's Go is older, for libcni.
package slices

import "sort"

// SortFunc sorts x by cmp.
func SortFunc[S ~[]E, E any](x S, cmp func(a, b E) int) {
	sort.SliceStable(x, func(i, j int) bool { return cmp(x[i], x[j]) < 0 })
}
