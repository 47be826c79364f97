//! The layout for the kernel: frames of waiting threads, read as the programs read them.

use super::live::{addresses, start, supported};
use crate::engine::cpython::Interpreter;
use crate::memory::{LiveProcess, Memory, PageCache};
use crate::model::{PythonLayout, Receiver, RemoteAddress};
use tracer_common::python::FrameStyle;

const SCRIPT: &str = "
import sys, threading, time


class Owner:
    def outer(self, number):
        return self.inner(number), number

    def inner(self, number):
        local = lambda: self
        try:
            raise KeyError(number)
        except KeyError:
            return leaf(local, number)


def leaf(*args):
    lock.acquire()


lock = threading.Lock()
lock.acquire()
owner = Owner()
worker = threading.Thread(target=owner.outer, args=(5,), daemon=True)
worker.start()
while sys._current_frames()[worker.ident].f_code is not leaf.__code__:
    time.sleep(0.01)
print(id(owner), flush=True)
sys.stdin.read()
";

/// What the programs do: words at offsets, nothing else.
struct Kernel<'a, M> {
    interpreter: &'a Interpreter<M>,
    layout: PythonLayout,
}

impl<M: Memory> Kernel<'_, M> {
    fn word(&self, address: u64) -> u64 {
        let mut word = [0; 8];
        self.interpreter.memory().read(RemoteAddress(address), &mut word).expect("it is mapped");
        u64::from_le_bytes(word)
    }

    fn reference(&self, address: u64) -> u64 {
        self.word(address) & self.layout.pointer_mask
    }

    fn top_frame(&self, thread: u64) -> u64 {
        let frame = self.word(thread + u64::from(self.layout.thread_frame));
        if self.layout.style == FrameStyle::DataStackByCFrame as u32 {
            return self.word(frame + u64::from(self.layout.cframe_frame));
        }
        frame
    }

    /// Frames with code, the innermost first. The interpreter has frames of its own that have none.
    fn frames(&self, thread: u64) -> Vec<(String, u64)> {
        let mut frames = Vec::new();
        let mut frame = self.top_frame(thread);
        while frame != 0 && frames.len() < 100 {
            let code = self.reference(frame + u64::from(self.layout.frame_code));
            if let Ok(code) = self.interpreter.code(RemoteAddress(code)) {
                frames.push((code.name, frame));
            }
            frame = self.word(frame + u64::from(self.layout.frame_previous));
        }
        frames
    }

    fn frame_named(&self, thread: u64, name: &str) -> u64 {
        let frames = self.frames(thread);
        let found = frames.iter().find(|(found, _)| found == name);
        found.unwrap_or_else(|| panic!("no {name} in {frames:?}")).1
    }
}

#[test]
fn frames_are_where_the_kernel_looks() {
    for (name, command) in supported() {
        let (running, line) = start(&command, SCRIPT, &[]);
        let owner: u64 = line.trim().parse().expect("an address");
        let interpreter = PageCache::new(LiveProcess::new(running.0.id()));
        let interpreter = Interpreter::open(interpreter, &addresses(running.0.id())).expect("it can be read");
        let layout = interpreter.kernel_layout().expect("a layout");
        let kernel = Kernel { interpreter: &interpreter, layout };
        let threads = interpreter.threads().expect("threads");
        let [worker, main] = threads.as_slice() else { panic!("{name}: {threads:?}") };
        assert!(kernel.frames(main.address.0).iter().any(|(name, _)| name == "<module>"), "{name}");
        let worker = worker.address.0;
        let names: Vec<String> = kernel.frames(worker).into_iter().map(|(name, _)| name).collect();
        assert!(names.starts_with(&["leaf".into(), "inner".into(), "outer".into()]), "{name}: {names:?}");
        let raised = kernel.word(worker + u64::from(layout.thread_exception));
        assert_eq!(raised, 0, "{name}: it is handled, no longer raised");
        for (method, receiver) in
            [("outer", Receiver::Local), ("inner", Receiver::Cell), ("leaf", Receiver::FirstOfTuple)]
        {
            let frame = kernel.frame_named(worker, method);
            let code = kernel.reference(frame + u64::from(layout.frame_code));
            let view = interpreter.code(RemoteAddress(code)).expect("code");
            assert_eq!(view.receiver, receiver, "{name} {method}");
            let local = kernel.reference(frame + u64::from(layout.frame_locals) + u64::from(view.receiver_offset));
            let first = match receiver {
                Receiver::Cell => kernel.word(local + u64::from(layout.cell_content)),
                Receiver::FirstOfTuple => kernel.word(local + u64::from(layout.tuple_items)),
                Receiver::Local | Receiver::None => local,
            };
            if method == "leaf" {
                assert!(interpreter.function(RemoteAddress(first)).is_ok(), "{name}: the lambda");
            } else {
                assert_eq!(first, owner, "{name} {method}");
            }
            check_frame(&kernel, worker, frame, code, &format!("{name} {method}"));
        }
    }
}

fn check_frame<M: Memory>(kernel: &Kernel<'_, M>, thread: u64, frame: u64, code: u64, context: &str) {
    let layout = &kernel.layout;
    let view = kernel.interpreter.code(RemoteAddress(code)).expect("code");
    if layout.style == FrameStyle::Heap as u32 {
        let stack = kernel.word(frame + u64::from(layout.frame_value_stack));
        let slots = view.variables.len() as u64;
        assert_eq!(stack, frame + u64::from(layout.frame_locals) + slots * 8, "{context}");
        let instruction = kernel.word(frame + u64::from(layout.frame_last_instruction)) & 0xffff_ffff;
        assert!((1..200).contains(&instruction), "{context}: {instruction}");
        return;
    }
    let function = kernel.reference(frame + u64::from(layout.frame_function));
    let function = kernel.interpreter.function(RemoteAddress(function)).expect("a function");
    assert_eq!((function.code.0, function.name), (code, view.name), "{context}");
    assert_eq!(kernel.word(function.address.0 + u64::from(layout.function_code)), code, "{context}");
    if frame == kernel.top_frame(thread) {
        let top = kernel.word(thread + u64::from(layout.thread_datastack_top));
        assert_eq!(top, frame + u64::from(view.frame_bytes), "{context}");
    }
}
