/* Start on a Cortex-M7 with semihosting, Arm's MPS2 board AN500 or its emulation, and count instructions there. */
#include <stdint.h>

#include "self_test.h"

extern const uint32_t stack_top[];
extern void _start(void); /* the C library's: it clears .bss, opens stdout and calls main */
void reset(void);

#define TIMER ((volatile uint32_t *)0x40000000) /* control, value, reload: counts down at 25 MHz */
#define INSTRUCTIONS_PER_TICK 40                /* each takes 1 ns by qemu's -icount shift=0 */

uint64_t instructions(void) {
    return (uint64_t)INSTRUCTIONS_PER_TICK * (UINT32_MAX - TIMER[1]);
}

__attribute__((noreturn)) static void stop(void) {
    for (;;) __asm__("bkpt 1"); /* a fault: the debugger, or the emulator, ends here */
}

void reset(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point unit is off after reset */
    __asm__ volatile("dsb\n isb");
    TIMER[1] = TIMER[2] = UINT32_MAX;
    TIMER[0] = 1;
    _start();
    stop();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)reset, (const void *)stop, (const void *)stop, (const void *)stop, (const void *)stop,
    (const void *)stop,
};
