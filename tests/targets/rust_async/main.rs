//! Methods that are `async`, or return a future: a call makes it, the work is done where it is polled.
//!
//! The first argument is the number of requests in a batch. A batch begins with a line on the standard input.

use std::future::Future;
use std::hint::black_box;
use std::io::BufRead;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

struct Scaler(f64);

impl Scaler {
    #[inline(never)]
    fn transform(&self, value: f64) -> f64 {
        (0..50).map(|step| black_box(self.0 * value * f64::from(step))).sum()
    }
}

/// Waits once.
struct Pause(bool);

impl Future for Pause {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

struct Later {
    scaler: Scaler,
}

impl Later {
    #[inline(never)]
    async fn predict(&self, value: f64) -> f64 {
        let once = self.scaler.transform(value);
        Pause(false).await;
        self.scaler.transform(once)
    }
}

/// As `async` methods of traits are written by hand, and by macros.
trait Remote {
    fn predict<'call>(&'call self, value: f64) -> Pin<Box<dyn Future<Output = f64> + 'call>>;
}

struct Boxed {
    scaler: Scaler,
}

impl Remote for Boxed {
    #[inline(never)]
    fn predict<'call>(&'call self, value: f64) -> Pin<Box<dyn Future<Output = f64> + 'call>> {
        Box::pin(async move {
            Pause(false).await;
            self.scaler.transform(value)
        })
    }
}

/// No future of its own: it waits for one, so that its calls are calls.
struct Waiting {
    scaler: Scaler,
}

impl Waiting {
    #[inline(never)]
    fn predict(&self, value: f64) -> f64 {
        block_on(async {
            Pause(false).await;
            self.scaler.transform(value)
        }) + 1.0
    }
}

fn block_on<Output>(future: impl Future<Output = Output>) -> Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

fn main() {
    let requests: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10);
    let later = Later { scaler: Scaler(2.0) };
    let boxed: Box<dyn Remote> = black_box(Box::new(Boxed { scaler: Scaler(3.0) }));
    let waiting = Waiting { scaler: Scaler(4.0) };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        drop(line);
        let mut sum = 0.0;
        for request in 0..requests {
            let value = f64::from(request);
            sum += block_on(later.predict(value)) + block_on(boxed.predict(value)) + waiting.predict(value);
        }
        println!("sum {sum:e}\nready");
    }
}
