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
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let Some(program) = compile("c++", "cpp", CPP_SOURCE, &["-O1", version]) else { return };
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
