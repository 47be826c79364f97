//! Programs made by the system's compilers.

use super::{Program, compile};
use crate::model::{ObjectLocation, ResolvedFunction, ReturnMethod, SkipReason, UnwindProof};

const C_SOURCE: &str = r#"
#include <stdlib.h>
extern void *stream;
volatile int sink;
__attribute__((noinline)) int leaf(int a) { return a * 3; }
__attribute__((noinline)) int caller(int a) { return leaf(a) + leaf(a + 1); }
__attribute__((noinline)) int even(int a);
__attribute__((noinline)) int odd(int a) { sink = a; return a == 0 ? 0 : even(a - 1) + 1; }
__attribute__((noinline)) int even(int a) { sink = a; return a == 0 ? 1 : odd(a - 1) + 1; }
__attribute__((noinline)) int indirect(int (*f)(int), int a) { sink = a; return f(a); }
__attribute__((noinline)) int external(int a) { return abs(atoi("7")) + a; }
__attribute__((noinline)) int table(int a) {
    switch (a) {
    case 0: sink = 5; return leaf(1);
    case 1: sink = 7; break;
    case 2: sink = 1; break;
    case 3: sink = 9; return 12;
    case 4: sink = 2; break;
    case 5: sink = 3; return 77;
    case 6: sink = 8; break;
    }
    return sink;
}
__attribute__((noinline)) void never(int a) { sink = a; abort(); }
__attribute__((noinline)) void nothing(void) {}
__attribute__((noinline)) int twice(int a, int b) { if (a > b) return 1; sink = b; if (a < -b) return sink; return b; }
int main(int argc, char **argv) {
    nothing();
    if (argc > 9) never(argc);
    return caller(argc) + odd(argc) + indirect(leaf, argc) + external(argc) + table(argc) + twice(argc, 3);
}
"#;

fn c_program(options: &[&str]) -> Option<Program> {
    compile("cc", "c", C_SOURCE, options)
}

fn proof(function: &ResolvedFunction) -> Option<UnwindProof> {
    match function.returns {
        ReturnMethod::Uretprobe { proof, .. } => Some(proof),
        ReturnMethod::ReturnSites { .. } => None,
    }
}

fn sites(function: &ResolvedFunction) -> (usize, usize) {
    match &function.returns {
        ReturnMethod::ReturnSites { sites } => {
            let tails = sites.iter().filter(|site| site.tail_jump).count();
            (sites.len() - tails, tails)
        }
        ReturnMethod::Uretprobe { .. } => panic!("{} has no return sites", function.name.path),
    }
}

#[test]
fn only_proven_functions_get_the_trampoline() {
    for options in [&["-O1"][..], &["-O2", "-fcf-protection=full"], &["-O2", "-no-pie", "-fno-pie"]] {
        let Some(program) = c_program(options) else { return };
        let of = |name: &str| proof(&program.function(name).expect("it can be probed"));
        assert_eq!(of("leaf"), Some(UnwindProof::CallsNothing), "{options:?}");
        assert_eq!(of("caller"), Some(UnwindProof::CallsOnlyProven), "{options:?}");
        assert_eq!(of("nothing"), Some(UnwindProof::CallsNothing), "{options:?}");
        assert_eq!(of("odd"), None, "a cycle proves nothing: {options:?}");
        assert_eq!(of("external"), None, "{options:?}");
        assert_eq!(of("indirect"), None, "{options:?}");
    }
}

#[test]
fn exits_are_the_returns_and_the_tail_jumps() {
    let Some(program) = c_program(&["-O2"]) else { return };
    assert_eq!(sites(&program.function("indirect").expect("it can be probed")), (0, 1));
    let (returns, tails) = sites(&program.function("table").expect("it can be probed"));
    assert!(returns >= 1 && tails == 1, "returns {returns}, tail jumps {tails}: the jump table is no exit");
    assert_eq!(program.function("never").expect_err("it never returns"), SkipReason::NoReturnSite);
}

#[test]
fn entry_sites_step_over_the_landing_pad() {
    let Some(program) = c_program(&["-O2", "-fcf-protection=full"]) else { return };
    let external = program.function("external").expect("it can be probed");
    assert!(external.entry.emulated && external.entry.instruction.starts_with("push"), "{:?}", external.entry);
    let bytes = program.bytes();
    let start = usize::try_from(external.entry.offset.0).expect("a small file");
    assert_eq!(bytes[start - 4..start], [0xf3, 0x0f, 0x1e, 0xfa], "endbr64 comes before {:?}", external.entry);
    let nothing = program.function("nothing").expect("it can be probed");
    assert_eq!((nothing.entry.stack_delta, nothing.entry.emulated), (0, false));
}

#[test]
fn offsets_are_right_in_every_kind_of_file() {
    for options in [&["-O1"][..], &["-O1", "-no-pie"], &["-O1", "-shared", "-fPIC"], &["-O1", "-static"]] {
        let Some(program) = c_program(options) else { return };
        let leaf = program.function("leaf").expect("it can be probed");
        let bytes = program.bytes();
        let start = usize::try_from(leaf.entry.offset.0).expect("a small file");
        assert_eq!(bytes[start..start + 3], [0x8d, 0x04, 0x7f], "lea (%rdi,%rdi,2),%eax: {options:?}");
    }
}

#[test]
fn a_stripped_library_keeps_its_dynamic_symbols() {
    let Some(program) = c_program(&["-O2", "-shared", "-fPIC", "-s"]) else { return };
    assert_eq!(program.function("leaf").expect("it can be probed").size, 4);
}

const CPP_SOURCE: &str = r#"
#include <stdexcept>
#include <vector>
namespace ml {
struct Big { double values[5]; };
class Model {
public:
    virtual ~Model() {}
    virtual void fit(int n) { total += n; }
    virtual int predict(int n) { if (n > 100) throw std::runtime_error("n"); return n + total; }
    virtual Big transform(int n) { Big big{}; big.values[0] = n + total; return big; }
    __attribute__((noinline)) int score(int n) const { return n * total; }
    __attribute__((noinline)) static int helper(int n) { return n * 5; }
    __attribute__((noinline)) std::vector<double> proba(int n) { return std::vector<double>(n, total); }
    int total = 0;
};
template <class T> class Scaler : public Model {
public:
    int predict(int n) override { T scale = 2; return Model::predict(n) * scale; }
};
__attribute__((noinline)) int free_function(int n) { return n * 7; }
}
int main(int argc, char **argv) {
    ml::Scaler<double> scaler;
    ml::Model *model = argc > 1 ? new ml::Model : &scaler;
    try {
        model->fit(argc);
        auto lambda = [&](int n) { return model->predict(n); };
        return lambda(argc) + model->transform(argc).values[0] + model->score(argc) + ml::Model::helper(argc)
            + ml::free_function(argc) + model->proba(argc).size();
    } catch (std::exception &) { return 1; }
}
"#;

fn objects(program: &Program) -> [ObjectLocation; 6] {
    [
        ("fit", "Model"),
        ("predict", "Model"),
        ("transform", "Model"),
        ("score", "Model"),
        ("helper", "Model"),
        ("proba", "Model"),
    ]
    .map(|(method, class)| program.method(class, method).object)
}

#[test]
fn what_throws_gets_return_sites() {
    let Some(program) = compile("c++", "cpp", CPP_SOURCE, &["-O2"]) else { return };
    let predict = program.method("Model", "predict");
    assert_eq!(predict.name.class_path.as_deref(), Some("ml::Model"));
    assert_eq!(sites(&predict).0, 1);
    let scaler = program.method("Scaler", "predict");
    assert_eq!(
        (scaler.name.path.as_str(), scaler.name.span_name().as_str()),
        ("ml::Scaler<double>::predict", "Scaler.predict")
    );
}

#[test]
fn objects_are_found_with_debugging_information() {
    use ObjectLocation::{FirstArgument, None, SecondArgument};
    for version in ["-gdwarf-4", "-gdwarf-5", "-gz=zlib", "-gz=zlib-gnu"] {
        let Some(program) = compile("c++", "cpp", CPP_SOURCE, &["-O1", "-g", version]) else { return };
        let expected = [FirstArgument, FirstArgument, SecondArgument, FirstArgument, None, SecondArgument];
        assert_eq!(objects(&program), expected, "{version}");
        assert_eq!(program.find("free_function")[0].1.as_ref().expect("it can be probed").object, None);
    }
}

#[test]
fn without_debugging_information_objects_are_proved_or_unknown() {
    use ObjectLocation::{FirstArgument, None};
    for options in [&["-O1"][..], &["-O1", "-no-pie", "-fno-pie"], &["-O1", "-shared", "-fPIC"]] {
        let Some(program) = compile("c++", "cpp", CPP_SOURCE, options) else { return };
        let [fit, predict, transform, score, helper, proba] = objects(&program);
        assert_eq!((fit, predict, score), (FirstArgument, FirstArgument, FirstArgument), "{options:?}");
        assert_eq!((transform, helper, proba), (None, None, None), "{options:?}");
    }
}

#[test]
fn cold_parts_belong_to_their_function() {
    let source = r#"
        #include <cstdlib>
        #include <stdexcept>
        volatile int sink;
        __attribute__((noinline)) int predict(int n) {
            if (__builtin_expect(n < 0, 0)) { sink = n; if (n == -7) throw std::runtime_error("n"); return -sink; }
            return rand() + n;
        }
        int main(int argc, char **) { return predict(argc); }
    "#;
    let Some(program) = compile("c++", "cpp", source, &["-O2"]) else { return };
    let Some(stripped) = compile("c++", "cpp", source, &["-O2", "-shared", "-fPIC", "-s"]) else { return };
    let (here, there) = (program.function("predict"), stripped.function("predict"));
    let (here, there) = (here.expect("it can be probed"), there.expect("it can be probed"));
    assert_eq!(sites(&here), sites(&there), "the cold part is found with its symbol and without");
}

#[test]
fn ifuncs_and_thunks_are_passed_over() {
    let source = r#"
        static int fast(int a) { return a + 1; }
        static void *choose(void) { return (void *)fast; }
        int predict(int a) __attribute__((ifunc("choose")));
        __attribute__((noinline)) int target(int a, int b) { return a * b; }
        __attribute__((noinline)) int fit(int a, int b) { return target(a, b); }
        int main(int argc, char **argv) { return predict(argc) + fit(argc, 2); }
    "#;
    let Some(program) = compile("cc", "c", source, &["-O2", "-fno-ipa-icf", "-fno-ipa-cp"]) else { return };
    assert_eq!(program.function("predict").expect_err("an ifunc"), SkipReason::IndirectFunction);
    assert_eq!(program.function("fit").expect_err("a jump"), SkipReason::JumpThunk);
}

#[test]
fn a_loop_to_the_first_instruction_is_refused() {
    let source = "
        .text
        .globl predict
        .type predict, @function
        predict: decl %edi
                 jne predict
                 ret
        .size predict, . - predict
        .section .note.GNU-stack,\"\",@progbits
    ";
    let Some(program) = compile("cc", "s", source, &["-shared"]) else { return };
    assert!(matches!(program.function("predict"), Err(SkipReason::LoopsToEntry { .. })));
}

#[test]
fn rust_methods_are_found_in_both_manglings() {
    let source = r#"
        pub struct Model<T> { weight: T }
        pub trait Predict { fn predict(&self, x: f64) -> Result<f64, String>; }
        impl Predict for Model<f64> {
            #[inline(never)]
            fn predict(&self, x: f64) -> Result<f64, String> {
                if x.is_nan() { panic!("nan") } else { Ok(std::hint::black_box(x) * self.weight) }
            }
        }
        fn main() { println!("{:?}", Model { weight: 2.0 }.predict(std::env::args().count() as f64)); }
    "#;
    for mangling in ["legacy", "v0"] {
        let option = format!("-Csymbol-mangling-version={mangling}");
        let options = ["-O", "--crate-name", "ml", &option, "-Zunstable-options"];
        let stable = if mangling == "v0" { &options[..4] } else { &options[..3] };
        let Some(program) = compile("rustc", "rs", source, stable) else { return };
        let predict = program.method("Model", "predict");
        assert_eq!(predict.name.class_path.as_deref(), Some("ml::Model"), "{mangling}");
        assert!(sites(&predict).0 >= 1);
        assert_eq!(predict.object, ObjectLocation::None);
        let offset = usize::try_from(predict.entry.offset.0).expect("a small file");
        assert!(program.bytes().len() > offset && program.path().exists());
    }
}

#[test]
fn only_the_loader_knows_the_functions() {
    for hash in ["-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv"] {
        let Some(program) = c_program(&["-O2", "-shared", "-fPIC", hash]) else { return };
        let with_sections = program.function("external").expect("it can be probed");
        for offset in [0, 1 << 40] {
            let mut bytes = program.bytes();
            bytes[0x28..0x30].copy_from_slice(&u64::to_le_bytes(offset));
            std::fs::write(program.path(), bytes).expect("the file is there");
            let function = program.function("external").expect("it can be probed");
            assert_eq!(function, with_sections, "{hash}");
        }
    }
}

/// A function written by hand whose symbol has no size and that has no unwind entry.
fn unsized_function(code: &str) -> Option<Result<ResolvedFunction, SkipReason>> {
    let source = format!(
        ".text\n.globl predict\n.type predict, @function\npredict:\n{code}\n.balign 16\n.globl next\n\
         .type next, @function\nnext: ret\n.section .note.GNU-stack,\"\",@progbits\n"
    );
    Some(compile("cc", "s", &source, &["-shared"])?.function("predict"))
}

#[test]
fn a_function_without_a_size_ends_where_nothing_more_is_reached() {
    let Some(measured) = unsized_function("test %edi,%edi\njle 1f\nmov $1,%eax\nret\n.balign 8\n1: mov $2,%eax\nret")
    else {
        return;
    };
    let measured = measured.expect("it can be probed");
    assert_eq!((sites(&measured), proof(&measured)), ((2, 0), None), "what was measured is no proof");
    for code in [
        // It runs on into the next one; a table may stand behind the jump; there is something behind the return.
        "mov $1,%eax",
        "jmp *(%rax,%rdi,8)\n.quad 1",
        "cmp $1,%edi\nje 1f\nret\n.byte 6,6,6\n1: ret",
    ] {
        let refused = unsized_function(code).expect("the compiler is there");
        assert_eq!(refused.expect_err(code), SkipReason::NoCode, "{code}");
    }
}

#[test]
fn thunks_that_only_correct_the_pointer_are_no_calls() {
    let source = r#"
        struct Large { double values[9]; };
        struct Fits { virtual ~Fits() {} virtual double fit(double x) = 0; };
        struct Predicts {
            virtual ~Predicts() {}
            virtual double predict(double x) = 0;
            virtual Large proba() = 0;
            virtual Predicts *transform() = 0;
        };
        volatile double sink;
        struct Forest : Fits, Predicts {
            double fit(double x) override;
            double predict(double x) override;
            Large proba() override;
            Forest *transform() override;
        };
        double Forest::fit(double x) { sink = x; return x; }
        double Forest::predict(double x) { sink = x; return sink * 2 + fit(x); }
        Large Forest::proba() { sink = 1; Large large{}; large.values[1] = fit(sink); return large; }
        Forest *Forest::transform() { sink = 1; return this; }
    "#;
    for options in [&["-O1", "-shared", "-fPIC"][..], &["-O2", "-shared", "-fPIC", "-fno-plt"]] {
        let Some(program) = compile("c++", "cpp", source, options) else { return };
        for word in ["predict", "proba", "transform"] {
            let (thunks, functions): (Vec<_>, Vec<_>) =
                program.find(word).into_iter().partition(|(candidate, _)| candidate.names[0].symbol.starts_with("_ZT"));
            assert_eq!(functions.iter().filter(|(_, result)| result.is_ok()).count(), 1, "{word} {options:?}");
            assert!(!thunks.is_empty(), "{word} {options:?}");
            for (candidate, result) in thunks {
                // A compiler may put a copy of a small function into its thunk.
                let copies = result.as_ref().is_ok_and(|function| function.object == ObjectLocation::None);
                assert!(copies || result == Err(SkipReason::JumpThunk), "{candidate:?} {result:?}");
            }
        }
    }
}

#[test]
fn a_coroutine_is_made_not_called() {
    let source = r#"
        #include <coroutine>
        struct Job {
            struct promise_type {
                Job get_return_object() { return {}; }
                std::suspend_always initial_suspend() noexcept { return {}; }
                std::suspend_always final_suspend() noexcept { return {}; }
                void return_void() {}
                void unhandled_exception() {}
            };
        };
        volatile int sink;
        struct Model { Job predict(int n); int predict(long n); };
        Job Model::predict(int n) { sink = n; co_await std::suspend_always{}; sink = 2; }
        int Model::predict(long n) { sink = n; return 1; }
    "#;
    for compiler in ["g++", "clang++"] {
        let options = ["-std=c++20", "-O1", "-shared", "-fPIC"];
        let Some(program) = compile(compiler, "cpp", source, &options) else { continue };
        let mut found: Vec<_> = program
            .find("predict")
            .into_iter()
            .map(|(candidate, result)| (candidate.names[0].symbol.clone(), result.map(drop)))
            .collect();
        found.sort_by_key(|(symbol, _)| symbol.clone());
        let expected = [
            ("_ZN5Model7predictEi".to_owned(), Err(SkipReason::MakesCoroutine)),
            ("_ZN5Model7predictEl".to_owned(), Ok(())),
        ];
        assert_eq!(found, expected, "{compiler}");
    }
}
