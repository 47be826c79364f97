//! What counts as proof that nothing unwinds through a function: small functions, assembled for one question each.

use super::{Program, compile};
use crate::model::{ResolvedFunction, ReturnMethod, SkipReason, UnwindProof};

/// A function `predict` in the section `.text`, other code, and tables.
fn assemble(body: &str, rest: &str, options: &[&str]) -> Option<Program> {
    let source = format!(
        "
        .text
        .globl predict
        .type predict, @function
        predict: .cfi_startproc
        {body}
        .cfi_endproc
        .size predict, . - predict
        .type other, @function
        other: .cfi_startproc
        call outside@PLT
        ret
        .cfi_endproc
        .size other, . - other
        {rest}
        .section .note.GNU-stack,\"\",@progbits
        "
    );
    compile("cc", "s", &source, options)
}

const SHARED: &[&str] = &["-shared", "-Wl,-z,notext"];
const FIXED: &[&str] = &["-nostdlib", "-no-pie", "-Wl,-e,predict", "-Wl,--unresolved-symbols=ignore-all"];

fn proof(program: &Program) -> Option<UnwindProof> {
    match program.function("predict").expect("it can be probed").returns {
        ReturnMethod::Uretprobe { proof, .. } => Some(proof),
        ReturnMethod::ReturnSites { .. } => None,
    }
}

fn exits(function: &ResolvedFunction) -> (usize, usize) {
    let (ReturnMethod::ReturnSites { sites } | ReturnMethod::Uretprobe { sites, .. }) = &function.returns;
    let tails = sites.iter().filter(|site| site.tail_jump).count();
    (sites.len() - tails, tails)
}

/// A `switch` over three cases by distances, behind the instructions that look at the index in `%edi`.
fn distances(check: &str) -> String {
    format!(
        "
        xorl %eax, %eax
        {check}
        leaq table(%rip), %rdx
        movslq (%rdx,%rsi,4), %rcx
        addq %rdx, %rcx
        jmp *%rcx
        zero: movl $5, %eax
        ret
        one: movl $7, %eax
        ret
        two: movl $9, %eax
        default: ret
        "
    )
}

const TABLE: &str = "
    .section .rodata
    .balign 4
    table: .long zero - table, one - table, two - table
    .long other - table, other - table
    .text
";

#[test]
fn a_bounded_table_of_distances_is_read_to_its_end() {
    for check in [
        "cmpl $2, %edi\nja default\nmovl %edi, %esi",
        "movl %edi, %esi\ncmpl $3, %esi\njae default",
        "movl %edi, %esi\ncmpl $2, %esi\njbe table_jump\nret\ntable_jump:",
        "cmpb $2, %dil\nja default\nmovzbl %dil, %esi",
        "movl %edi, %esi\nandl $1, %esi",
        "subl $4, %edi\ncmpl $2, %edi\nja default\nmovslq %edi, %rsi",
        // One way sets it, the other compares it.
        "movl $1, %esi\ntestl %edx, %edx\nje both\nmovl %edi, %esi\ncmpl $2, %esi\nja default\nboth:",
    ] {
        let Some(program) = assemble(&distances(check), TABLE, SHARED) else { return };
        assert_eq!(proof(&program), Some(UnwindProof::CallsNothing), "{check}");
        assert_eq!(exits(&program.function("predict").expect("it can be probed")).1, 0, "{check}");
    }
}

#[test]
fn a_table_without_a_known_end_is_no_proof() {
    for check in [
        "movl %edi, %esi",
        // A comparison of something else, with sign, of another width, or on one of two ways only.
        "cmpl $2, %edx\nja default\nmovl %edi, %esi",
        "cmpl $2, %edi\njg default\nmovl %edi, %esi",
        "cmpb $2, %dil\nja default\nmovl %edi, %esi",
        "cmpl $2, %edi\nja default\nmovq %rdi, %rsi",
        "movl %edi, %esi\ntestl %edx, %edx\nje both\ncmpl $2, %esi\nja default\nboth:",
        // The flags are those of another instruction by then.
        "movl %edi, %esi\ncmpl $2, %esi\ntestl %edx, %edx\nja default",
        // The index changes after it was compared.
        "movl %edi, %esi\ncmpl $2, %esi\nja default\naddl $1, %esi",
        // The comparison lets the table run into the next one, which leads to another function.
        "movl %edi, %esi\ncmpl $3, %esi\nja default",
    ] {
        let Some(program) = assemble(&distances(check), TABLE, SHARED) else { return };
        assert_eq!(proof(&program), None, "{check}");
        assert_eq!(exits(&program.function("predict").expect("it can be probed")).1, 0, "{check}");
    }
}

#[test]
fn a_table_that_can_change_is_no_proof() {
    let check = "cmpl $2, %edi\nja default\nmovl %edi, %esi";
    let writable = TABLE.replace(".rodata", ".data");
    let Some(program) = assemble(&distances(check), &writable, SHARED) else { return };
    assert_eq!(proof(&program), None);
}

#[test]
fn what_only_a_table_leads_to_is_decoded() {
    let check = "cmpl $2, %edi\nja default\nmovl %edi, %esi";
    let cold = |code: &str| {
        format!(
            "
            .section .rodata
            .balign 4
            table: .long zero - table, one - table, rare - table
            .section .text.unlikely,\"ax\",@progbits
            .type predict.cold, @function
            predict.cold: .cfi_startproc
            rare: {code}
            .cfi_endproc
            .size predict.cold, . - predict.cold
            .text
            "
        )
    };
    for options in [SHARED, &["-shared", "-Wl,-z,notext", "-s"]] {
        let Some(throws) = assemble(&distances(check), &cold("call outside@PLT\nret"), options) else { return };
        assert_eq!(proof(&throws), None, "{options:?}");
        assert_eq!(exits(&throws.function("predict").expect("it can be probed")), (4, 0), "{options:?}");
        let Some(harmless) = assemble(&distances(check), &cold("movl $3, %eax\nret"), options) else { return };
        assert_eq!(proof(&harmless), Some(UnwindProof::CallsNothing), "{options:?}");
    }
    // The cold part's own table leads on to a call.
    let chained = cold(
        "movl %edi, %esi\nandl $1, %esi\nleaq second(%rip), %rdx\nmovslq (%rdx,%rsi,4), %rcx\naddq %rdx, %rcx\njmp *%rcx\nthird: call outside@PLT\nret",
    ) + "
        .section .rodata
        second: .long two - second, third - second
        .text
        ";
    let Some(program) = assemble(&distances(check), &chained, SHARED) else { return };
    assert_eq!(proof(&program), None);
    assert_eq!(exits(&program.function("predict").expect("it can be probed")), (4, 0));
}

#[test]
fn tables_of_addresses() {
    let cases = "zero: ret\none: movl $7, %eax\nret\ntwo: ret\ndefault: ret";
    let table = |entries: &str| format!(".section .rodata\n.balign 8\ntable: .quad {entries}\n.text\n");
    for (jump, entries, proven, tails) in [
        ("jmp *table(,%rsi,8)", "zero, one, two", true, 0),
        ("notrack jmp *table(,%rsi,8)", "zero, one, two", true, 0),
        ("movl $table, %edx\njmp *(%rdx,%rsi,8)", "zero, one, two", true, 0),
        ("movq table(,%rsi,8), %rax\njmp *%rax", "zero, one, two", true, 0),
        // An entry leads to another function; pointers to functions are no table of a `switch`.
        ("jmp *table(,%rsi,8)", "zero, one, other", false, 0),
        ("jmp *table(,%rsi,8)", "other, predict, other", false, 1),
    ] {
        let body = format!("xorl %eax, %eax\ncmpl $2, %edi\nja default\nmovl %edi, %esi\n{jump}\n{cases}");
        let Some(program) = assemble(&body, &table(entries), FIXED) else { return };
        assert_eq!(proof(&program).is_some(), proven, "{jump} to {entries}");
        assert_eq!(exits(&program.function("predict").expect("it can be probed")).1, tails, "{jump} to {entries}");
    }
}

#[test]
fn code_that_is_no_plain_function_is_no_proof() {
    for (body, proven) in [
        ("pushq %rbp\nmovq %rsp, %rbp\nandq $-32, %rsp\nmovl $1, %eax\nleave\nret", true),
        ("leaq 8(%rsp), %r10\nandq $-32, %rsp\npushq -8(%r10)\nleaq -8(%r10), %rsp\nret", true),
        ("pushq %rbx\nmovl 16(%rsp), %eax\npopq %rbx\nret", true),
        // Another stack; the return address read, replaced, and taken off; the end of the code reached.
        ("pushq %rbx\nmovq %rsp, (%rdi)\nmovq %rsi, %rsp\npopq %rbx\nret", false),
        ("pushq %rbx\nmovq (%rdi), %rsp\npopq %rbx\nret", false),
        ("movq (%rsp), %rax\nmovq %rax, (%rdi)\nret", false),
        ("pushq %rbp\nmovq %rsp, %rbp\nmovq 8(%rbp), %rax\npopq %rbp\nret", false),
        ("pushq %rdi\nret", false),
        ("testl %edi, %edi\nje 1f\nret\n1: movl $1, %eax", false),
    ] {
        let Some(program) = assemble(&format!("xorl %ecx, %ecx\n{body}"), "", SHARED) else { return };
        assert_eq!(proof(&program).is_some(), proven, "{body}");
    }
}

#[test]
fn runtimes_that_walk_stacks_get_no_return_probes() {
    let body = "movl %edi, %eax\nret";
    for rest in [
        ".section .gopclntab,\"a\"\n.byte 0\n.text",
        ".section .go.buildinfo,\"a\"\n.byte 0\n.text",
        ".globl caml_frametable\n.data\ncaml_frametable: .quad 0\n.text",
        ".data\n.quad pthread_setcanceltype\n.text",
    ] {
        let Some(program) = assemble(body, rest, SHARED) else { return };
        assert_eq!(proof(&program), None, "{rest}");
    }
    let go = "
        .section .gopclntab,\"a\"
        .byte 0
        .text
        .type runtime.etext, @function
        runtime.etext: nop
    ";
    let body = "movl %edi, %eax\nret\n.type runtime.text, @function\n.set runtime.text, predict";
    let Some(program) = assemble(body, go, SHARED) else { return };
    assert!(matches!(program.function("predict"), Err(SkipReason::MovingStack { .. })));
}

#[test]
fn landing_pads_in_a_cold_part_are_no_proof_even_without_calls() {
    let source = r#"
        extern void release(int);
        struct Guard { int n; ~Guard() { release(n); } };
        int predict(const int *values) {
            try { return values[0] + values[1]; } catch (int code) { return code; }
        }
        int main() { int values[2] = {1, 2}; return predict(values); }
        void release(int) {}
    "#;
    let Some(program) = compile("c++", "cpp", source, &["-O2", "-fnon-call-exceptions", "-fno-inline"]) else { return };
    assert_eq!(proof(&program), None);
}
