/* Start on a Cortex-M7 with semihosting, Arm's MPS2 board AN500 or its emulation, and check what needs no runtime. */
#include <stdint.h>

#include "self_test.h"

extern const uint32_t stack_top[];
extern void _start(void); /* the C library's: it clears .bss, opens stdout and calls main */
void reset(void);

__attribute__((noreturn)) static void stop(void) {
    for (;;) __asm__("bkpt 1"); /* a fault: the debugger, or the emulator, ends here */
}

void reset(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point unit is off after reset */
    __asm__ volatile("dsb\n isb");
    _start();
    stop();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)reset, (const void *)stop, (const void *)stop, (const void *)stop, (const void *)stop,
    (const void *)stop,
};

int main(void) {
    return self_test(0) ? 0 : 1;
}
