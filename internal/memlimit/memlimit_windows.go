package memlimit

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// memoryStatusEx is MEMORYSTATUSEX of sysinfoapi.h.
type memoryStatusEx struct {
	length                                           uint32
	memoryLoad                                       uint32
	totalPhys, availPhys, totalPageFile              uint64
	availPageFile, totalVirtual, availVirtual, extra uint64
}

// platformLimits asks GlobalMemoryStatusEx for the physical memory that is free.
func platformLimits() []Limit {
	status := memoryStatusEx{length: uint32(unsafe.Sizeof(memoryStatusEx{}))}
	ok, _, _ := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx").Call(uintptr(unsafe.Pointer(&status)))
	if ok == 0 {
		return nil
	}
	return []Limit{{int64(status.availPhys), "available on this machine"}}
}
