package kernels

//go:generate bash gen/all
