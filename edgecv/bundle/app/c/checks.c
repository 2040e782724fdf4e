/* The self-test without a runtime: all but running the model. */
#include "self_test.h"

int main(void) {
    return self_test(0) ? 0 : 1;
}
