//! A program on a terminal of its own: keys go in, and its screen can be looked at.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::PATIENCE;

/// A program and its terminal. Dropping it ends the program.
pub struct Terminal {
    child: Child,
    /// The end of whoever sits in front of it.
    front: File,
    /// The end of the program, kept open so that its modes can be asked for.
    back: File,
    screen: vt100::Parser,
}

impl Terminal {
    /// Starts a command with a terminal of this size as its controlling one.
    ///
    /// # Errors
    /// When there is no terminal, or the command cannot be started.
    pub fn start(command: &Command, rows: u16, columns: u16) -> Result<Self> {
        let front = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&front)?;
        unlockpt(&front)?;
        let name = ptsname(&front, Vec::<u8>::new())?;
        let back = File::from(open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?);
        tcsetwinsize(&front, size(rows, columns))?;
        fcntl_setfl(&front, fcntl_getfl(&front)? | OFlags::NONBLOCK)?;
        // Whatever ignores a signal passes that on to what it starts, as `nohup` does.
        let mut inside = Command::new("env");
        inside
            .args(["--default-signal", "setsid", "--ctty"])
            .arg(command.get_program())
            .args(command.get_args())
            .env("TERM", "xterm-256color");
        inside.stdin(back.try_clone()?).stdout(back.try_clone()?).stderr(back.try_clone()?);
        let child = inside.spawn().context("cannot start setsid")?;
        Ok(Self { child, front: File::from(front), back, screen: vt100::Parser::new(rows, columns, 0) })
    }

    /// What is on the screen.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub fn screen(&mut self) -> Result<String> {
        let mut bytes = [0; 4096];
        loop {
            match self.front.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.screen.process(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.screen.screen().contents())
    }

    /// Waits until the screen is as wanted, and gives it.
    ///
    /// # Errors
    /// When it is not for too long; the message shows the screen.
    pub fn wait_until(&mut self, wanted: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let begin = Instant::now();
        loop {
            let screen = self.screen()?;
            if is_so(&screen) {
                return Ok(screen);
            }
            if begin.elapsed() > PATIENCE {
                bail!("not on the screen: {wanted}; it shows:\n{screen}");
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the screen shows a text.
    ///
    /// # Errors
    /// See [`Self::wait_until`].
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.front.write_all(keys.as_bytes())?)
    }

    /// Makes the window another size.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        self.screen()?;
        self.screen.screen_mut().set_size(rows, columns);
        Ok(tcsetwinsize(&self.front, size(rows, columns))?)
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for the end of the program. Gives how it ended, and what was on the screen then.
    ///
    /// # Errors
    /// When it does not end, or leaves the terminal another way than it was: on its second screen, without echo, without lines,
    /// without a cursor.
    pub fn finish(mut self) -> Result<(ExitStatus, String)> {
        let begin = Instant::now();
        let status = loop {
            // A program whose terminal is full does not end.
            self.screen()?;
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begin.elapsed() > PATIENCE {
                bail!("it does not end; the screen:\n{}", self.screen()?);
            }
            sleep(Duration::from_millis(20));
        };
        let text = self.screen()?;
        let screen = self.screen.screen();
        let modes = tcgetattr(&self.back)?.local_modes;
        let is_restored = modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        if !is_restored || screen.alternate_screen() || screen.hide_cursor() {
            bail!(
                "the terminal is left in disorder ({modes:?}, second screen: {}, no cursor: {}):\n{text}",
                screen.alternate_screen(),
                screen.hide_cursor()
            );
        }
        Ok((status, text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
