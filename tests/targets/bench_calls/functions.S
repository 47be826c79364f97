// Functions that do next to nothing: what a call of them costs under a tracer is the tracer's price.
// rdi: the number of inner calls, where there are any.

    .text

.macro begin symbol
    .globl \symbol
    .type \symbol, @function
    .p2align 4
\symbol:
    .cfi_startproc
.endm

.macro begin_pushed symbol
    begin \symbol
    push %rbx
    .cfi_def_cfa_offset 16
    .cfi_offset %rbx, -16
.endm

.macro finish symbol
    pop %rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size \symbol, . - \symbol
.endm

// Begins with an instruction that the kernel emulates.
begin_pushed bench_push
finish bench_push

// Begins with one that the kernel single-steps.
begin bench_marked
    endbr64
    push %rbx
    .cfi_def_cfa_offset 16
    .cfi_offset %rbx, -16
finish bench_marked

begin_pushed bench_leaf
finish bench_leaf

// Calls the leaf often; the map folds the leaf here.
begin_pushed bench_container
    mov %rdi, %rbx
    xor %edi, %edi          // a first argument of its own, or the leaf would be called on the same object
1:  call bench_leaf
    dec %rbx
    jnz 1b
finish bench_container

// Calls the leaf three times; here the leaf is a step of its own.
begin_pushed bench_pipeline
    call bench_leaf
    call bench_leaf
    call bench_leaf
finish bench_pipeline

    .section .note.GNU-stack, "", @progbits
