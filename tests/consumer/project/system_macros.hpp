// SPDX-License-Identifier: Apache-2.0
// What system headers do to those who include them first: windows.h with its friends, complex.h, sys/sysmacros.h, Xlib.h,
// AssertMacros.h of macOS. Written down here, so that every system tests it. What swallows an argument is defined so that
// a use of the name does not compile.
#pragma once

// windows.h, minwindef.h, wingdi.h, rpcndr.h
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define near
#define far
#define small char
#define hyper __int64
#define interface struct
#define pascal __stdcall
#define cdecl __cdecl
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define VOID void
#define TRUE 1
#define FALSE 0
#define ERROR 0
#define DELETE 0x00010000L
#define STRICT 1
#define IGNORE 0
#define INFINITE 0xFFFFFFFF
#define ABSOLUTE 1
#define RELATIVE 2
#define TRANSPARENT 1
#define OPAQUE 2

// complex.h
#define I (1.0fi)

// sys/sysmacros.h and sys/param.h
#define major(dev) gnu_dev_major(dev)
#define minor(dev) gnu_dev_minor(dev)
#define PAGE_SIZE 4096

// Xlib.h
#define Bool int
#define Status int
#define Success 0
#define None 0L
#define Always 2

// AssertMacros.h
#define check(assertion) static_assert(false)
#define verify(assertion) static_assert(false)
