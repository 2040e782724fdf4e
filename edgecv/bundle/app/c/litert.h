/* What host.c needs of LiteRT's C interface, as libLiteRt.so of the ai-edge-litert wheel 2.3 has it. */
#ifndef LITERT_H
#define LITERT_H

#include <stddef.h>
#include <stdint.h>

typedef struct LiteRtEnvironmentT *LiteRtEnvironment;
typedef struct LiteRtModelT *LiteRtModel;
typedef struct LiteRtOptionsT *LiteRtOptions;
typedef struct LiteRtCompiledModelT *LiteRtCompiledModel;
typedef struct LiteRtSignatureT *LiteRtSignature;
typedef struct LiteRtTensorT *LiteRtTensor;
typedef struct LiteRtTensorBufferT *LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT *LiteRtRequirements;

enum { LITERT_FLOAT32 = 1, LITERT_UINT8 = 3 };  /* element_type */
enum { LITERT_CPU = 1 };                        /* accelerators */
enum { LITERT_READ = 0, LITERT_WRITE = 1 };     /* lock modes */

typedef struct {
    int element_type;
    uint32_t rank; /* 7 bits, and one that says whether there are strides */
    int32_t dimensions[8];
    uint32_t strides[8];
} LiteRtRankedTensorType;

/* Each returns 0 where it worked. */
int LiteRtCreateEnvironment(int count, const void *options, LiteRtEnvironment *result);
int LiteRtCreateModelFromBuffer(LiteRtEnvironment, const void *bytes, size_t size, LiteRtModel *result);
int LiteRtCreateOptions(LiteRtOptions *result);
int LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, int accelerators);
int LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel *result);
int LiteRtGetModelSignature(LiteRtModel, size_t index, LiteRtSignature *result);
int LiteRtGetSignatureInputTensorByIndex(LiteRtSignature, size_t index, LiteRtTensor *result);
int LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature, size_t index, LiteRtTensor *result);
int LiteRtGetRankedTensorType(LiteRtTensor, LiteRtRankedTensorType *result);
int LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t, LiteRtRequirements *);
int LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t signature, size_t, LiteRtRequirements *);
int LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment, const LiteRtRankedTensorType *,
                                                    LiteRtRequirements, LiteRtTensorBuffer *result);
int LiteRtLockTensorBuffer(LiteRtTensorBuffer, void **memory, int mode);
int LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);
int LiteRtRunCompiledModel(LiteRtCompiledModel, size_t signature, size_t inputs, LiteRtTensorBuffer *, size_t outputs,
                           LiteRtTensorBuffer *);

#endif
