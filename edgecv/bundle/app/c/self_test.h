/* Is this still the model, are these its labels, and does this processor compute what was verified? */
#ifndef SELF_TEST_H
#define SELF_TEST_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Run the model on an input; give its probabilities, or NULL where it can't be run. */
typedef const float *(*infer_t)(const uint8_t *input);

/* Print what was compared with golden.c. With infer == NULL the model is not run. */
bool self_test(infer_t infer);

/* How many instructions were run, to the nearest 40, on an emulated Cortex-M7; 0 where they can't be counted. */
uint64_t instructions(void);

/* Print the five best labels. */
void print_best(const float *outputs);

#ifdef __cplusplus
}
#endif
#endif
