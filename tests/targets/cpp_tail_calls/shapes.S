// Shapes that a compiler makes seldom. rdi: the object, rsi: the value, rax: the result.

    .text

.macro begin symbol
    .globl \symbol
    .type \symbol, @function
    .p2align 4
\symbol:
    .cfi_startproc
#ifdef __CET__
    endbr64
#endif
.endm

.macro finish symbol
    .cfi_endproc
    .size \symbol, . - \symbol
.endm

// value * 2
begin _ZN6shapes6Target7predictEl
    lea (%rsi,%rsi), %rax
    ret
finish _ZN6shapes6Target7predictEl

// Three ways out.
begin _ZN6shapes11ManyReturns7predictEl
    push %rbx
    .cfi_def_cfa_offset 16
    mov %rsi, %rbx
    and $3, %rbx
    cmp $1, %rbx
    jl 1f
    je 2f
    lea 3(%rsi), %rax
    pop %rbx
    ret
1:  lea 1(%rsi), %rax
    pop %rbx
    ret
2:  lea 2(%rsi), %rax
    pop %rbx
    ret
finish _ZN6shapes11ManyReturns7predictEl

// `rep ret`, as compilers wrote for old AMD processors.
begin _ZN6shapes14RepeatedReturn7predictEl
    lea 5(%rsi), %rax
    rep ret
finish _ZN6shapes14RepeatedReturn7predictEl

// `ret imm16`.
begin _ZN6shapes15ReturnWithCount7predictEl
    lea 7(%rsi), %rax
    ret $0
finish _ZN6shapes15ReturnWithCount7predictEl

// Ends in a jump to another function.
begin _ZN6shapes8TailJump7predictEl
    add $11, %rsi
    jmp _ZN6shapes6Target7predictEl
finish _ZN6shapes8TailJump7predictEl

// Every second value leaves by a conditional jump.
begin _ZN6shapes15ConditionalTail7predictEl
    test $1, %rsi
    jne _ZN6shapes6Target7predictEl
    lea 13(%rsi), %rax
    ret
finish _ZN6shapes15ConditionalTail7predictEl

// A loop back to the first instruction: one call, several passes of the entry.
    .globl _ZN6shapes11LoopToEntry7predictEl
    .type _ZN6shapes11LoopToEntry7predictEl, @function
    .p2align 4
_ZN6shapes11LoopToEntry7predictEl:
    .cfi_startproc
    nop
    sub $3, %rsi
    jns _ZN6shapes11LoopToEntry7predictEl
    mov %rsi, %rax
    ret
finish _ZN6shapes11LoopToEntry7predictEl

// Calls itself as its last deed, with its frame already taken down.
begin _ZN6shapes8SelfTail7predictEl
    push %rbp
    .cfi_def_cfa_offset 16
    mov %rsp, %rbp
    mov %rsi, %rax
    pop %rbp
    .cfi_def_cfa_offset 8
    sub $5, %rsi
    jns _ZN6shapes8SelfTail7predictEl
    ret
finish _ZN6shapes8SelfTail7predictEl

// No-operations of several lengths before the first real instruction.
begin _ZN6shapes11PaddedEntry7predictEl
    .byte 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00
    .byte 0x66, 0x90
    push %r12
    .cfi_def_cfa_offset 16
    lea 17(%rsi), %rax
    pop %r12
    .cfi_def_cfa_offset 8
    ret
finish _ZN6shapes11PaddedEntry7predictEl

// Nothing but a jump.
begin _ZN6shapes8OnlyJump7predictEl
    jmp _ZN6shapes6Target7predictEl
finish _ZN6shapes8OnlyJump7predictEl

    .section .note.GNU-stack, "", @progbits
