// Package fakemetal is a stand-in for Apple's Metal framework, for tests of the darwin code on Linux: the classes and functions that
// package gpu asks for, in Objective-C on GNUstep, with the checks of Metal's API validation layer. Source is compiled by the CPU
// device, and its kernels run on a thread of their own between commit and waitUntilCompleted.
//
// It is built with the tag gnustep only, with cgo and ../gnustep/gnustepcc as the C compiler (.ci/run gnustep). Tests steer it
// by messages to its class FakeMetal: see fakemetal.m.
//
// What it cannot say: whether Apple's compiler takes the kernels, what a GPU computes, and how Metal behaves where its
// documentation is silent.
package fakemetal
