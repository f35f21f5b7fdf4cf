#pragma once
/* what darwinkit names of Apple's runtime and libobjc of gcc lacks */
#include_next <objc/runtime.h>
typedef struct { const char *name; const char *value; } objc_property_attribute_t;
#define objc_lookUpClass(n) objc_getClass(n)
