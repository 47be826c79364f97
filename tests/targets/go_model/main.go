// A model in Go: its goroutines run while the collector walks their stacks, and their stacks grow.
package main

import (
	"fmt"
	"runtime"
	"sync"
)

//go:noinline
func score(weights *[32]float64, times int) float64 {
	sum := 0.0
	for i := 0; i < times; i++ {
		sum += weights[i%32] * float64(i%7)
	}
	return sum
}

func deepen(depth int) int {
	var room [512]byte
	if depth == 0 {
		return int(room[1])
	}
	return deepen(depth-1) + int(room[depth%512])
}

func main() {
	sums := make([]float64, 4)
	var group sync.WaitGroup
	go func() {
		for {
			runtime.GC()
			runtime.Stack(make([]byte, 1<<14), true)
		}
	}()
	for worker := range sums {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			weights := [32]float64{1, 2, 3, 4}
			for call := 0; call < 100; call++ {
				sums[worker] += score(&weights, 50000)
				deepen(call % 40)
			}
		}(worker)
	}
	group.Wait()
	fmt.Println(sums)
}
