// 20,001 methods, Model10000::predict(double) to Model30000::predict(double).
.altmacro
.macro model number
.globl _ZN10Model\number\()7predictEd
.type _ZN10Model\number\()7predictEd, @function
_ZN10Model\number\()7predictEd:
    push %rbp
    mov %rsp, %rbp
    addsd %xmm0, %xmm0
    pop %rbp
    ret
.size _ZN10Model\number\()7predictEd, . - _ZN10Model\number\()7predictEd
.endm

.text
.set number, 10000
.rept 20001
    model %number
    .set number, number + 1
.endr
.section .note.GNU-stack, "", @progbits
