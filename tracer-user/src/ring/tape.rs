//! Tapes: recorded record streams that replay through everything after the ring, without root and without a kernel.
//!
//! A tape is a line with its version, `ml-tracer-tape 2`, a line of JSON ([`TapeHeader`]), then items: one byte that tells the
//! kind, four bytes of length (little endian), and the bytes. The last item is the end; a tape without one was cut off.
//!
//! The version tells how items are written, not what records hold: those say for themselves how much of them is there. Tapes
//! of version 1 are read as well.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};

use serde::{Deserialize, Serialize};
use tracer_common::records::WideCallRecord;
use zerocopy::IntoBytes as _;

use super::tape_version_1::EndOfVersion1;
use crate::model::{
    ClockAnchor, FunctionDescription, Gap, LossCounts, PythonNames, RawRecord, RemoteAddress, Target, UnwatchedMethods,
};

const MAGIC: &str = "ml-tracer-tape 2\n";
const MAGIC_OF_VERSION_1: &str = "ml-tracer-tape 1\n";
const RECORD: u8 = 1;
const FUNCTIONS: u8 = 2;
const END: u8 = 3;
/// Only version 1 has them: thread names come in records since.
const THREAD: u8 = 4;
const PYTHON_NAMES: u8 = 5;
const PYTHON_CLASS: u8 = 6;
const PROCESS: u8 = 7;
const GAP: u8 = 8;
const ANCHOR: u8 = 9;
const UNWATCHED: u8 = 10;

/// No item is larger; more is a damaged length.
const MAX_ITEM_BYTES: u32 = 64 << 20;

/// What is known when recording begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapeHeader {
    /// Seed of the trace and span ids, so that a replay gives the same ones.
    pub seed: u64,
    /// Maps the record's clock to wall-clock time.
    pub anchor: ClockAnchor,
    /// The traced processes, without their modules.
    pub targets: Vec<Target>,
}

/// What is known when recording ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TapeEnd {
    /// What the kernel side counted.
    pub totals: LossCounts,
}

/// One item of a tape.
#[derive(Debug, PartialEq)]
pub enum TapeItem<'tape> {
    /// A record as the ring buffer held it. Those of calls that were still open come last.
    Record(RawRecord<'tape>),
    /// Functions that records after this item may name.
    Functions(Vec<FunctionDescription>),
    /// Name of a thread that records after this item may name.
    Thread {
        /// Thread id in the records.
        thread: u32,
        /// Its name.
        name: String,
    },
    /// Python classes and steps that records after this item may name.
    PythonNames(PythonNames),
    /// Name of a Python class that was asked for because the next record names it; `None`: nobody knew it.
    PythonClass {
        /// Process id in the records.
        process: u32,
        /// Address of the type object.
        class: RemoteAddress,
        /// Its name.
        name: Option<String>,
    },
    /// A process that records after this item may name: followed since, or running another program.
    Process(Box<Target>),
    /// A time in which not every call was seen to begin, at its place among the records.
    Gap(Gap),
    /// The two clocks have moved apart: times are told by this anchor from its instant on.
    Anchor(ClockAnchor),
    /// Methods of steps that are not watched, at its place among the records.
    Unwatched(UnwatchedMethods),
    /// The end.
    End(Box<TapeEnd>),
}

/// Why a tape cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// Writing or reading failed.
    #[error("the tape could not be read or written: {0}")]
    Io(#[from] io::Error),
    /// The file does not begin like a tape.
    #[error("this file is no tape of ml-tracer, or one of another version; record it again with this version")]
    NoTape,
    /// The tape ends in the middle of an item.
    #[error("the tape is cut off after {items} items")]
    CutOff {
        /// Whole items before the cut.
        items: u64,
    },
    /// The last item is missing.
    #[error("the tape has no end: the recording was interrupted")]
    NoEnd,
    /// An item that cannot be understood.
    #[error("item {item} of the tape cannot be understood: {problem}")]
    Damaged {
        /// Number of the item, from 1.
        item: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Writes a tape.
pub struct TapeWriter<Output: Write> {
    output: Output,
}

impl<Output: Write> TapeWriter<Output> {
    /// Begins a tape.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(mut output: Output, header: &TapeHeader) -> Result<Self, TapeError> {
        output.write_all(MAGIC.as_bytes())?;
        serde_json::to_writer(&mut output, header).map_err(io::Error::from)?;
        output.write_all(b"\n")?;
        Ok(Self { output })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn record(&mut self, record: &RawRecord<'_>) -> Result<(), TapeError> {
        self.item(RECORD, record.0)
    }

    /// Adds functions that later records may name.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn functions(&mut self, functions: &[FunctionDescription]) -> Result<(), TapeError> {
        self.json(FUNCTIONS, &functions)
    }

    /// Adds a process that later records may name; its modules are left out.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn process(&mut self, target: &Target) -> Result<(), TapeError> {
        self.json(PROCESS, &Target { modules: Vec::new(), ..target.clone() })
    }

    /// Adds the beginning or the end of a time in which not every call was seen to begin.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn gap(&mut self, gap: Gap) -> Result<(), TapeError> {
        self.json(GAP, &gap)
    }

    /// Adds an anchor: the two clocks have moved apart.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn anchor(&mut self, anchor: ClockAnchor) -> Result<(), TapeError> {
        self.json(ANCHOR, &anchor)
    }

    /// Adds methods of steps that are not watched from an instant on.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn unwatched(&mut self, unwatched: &UnwatchedMethods) -> Result<(), TapeError> {
        self.json(UNWATCHED, unwatched)
    }

    /// Adds names of Python classes and steps.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn python_names(&mut self, names: &PythonNames) -> Result<(), TapeError> {
        self.json(PYTHON_NAMES, names)
    }

    /// Adds what was found when the name of a Python class was asked for.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn python_class(&mut self, process: u32, class: RemoteAddress, name: Option<&str>) -> Result<(), TapeError> {
        self.json(PYTHON_CLASS, &(process, class, name))
    }

    /// Ends the tape.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(mut self, end: &TapeEnd) -> Result<(), TapeError> {
        self.json(END, end)?;
        self.output.flush()?;
        Ok(())
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) -> Result<(), TapeError> {
        let bytes = serde_json::to_vec(value).map_err(io::Error::from)?;
        self.item(kind, &bytes)
    }

    fn item(&mut self, kind: u8, bytes: &[u8]) -> Result<(), TapeError> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.output.write_all(&[kind])?;
        self.output.write_all(&length.to_le_bytes())?;
        self.output.write_all(bytes)?;
        Ok(())
    }
}

/// Reads a tape item by item.
pub struct TapeReader<Input: Read> {
    input: BufReader<Input>,
    buffer: Vec<u8>,
    items: u64,
    is_version_1: bool,
    /// The end of a tape of version 1, and the records before it that it held.
    end: Option<(VecDeque<WideCallRecord>, TapeEnd)>,
}

impl<Input: Read> TapeReader<Input> {
    /// Begins to read.
    ///
    /// # Errors
    /// The input is no tape.
    pub fn new(input: Input) -> Result<(TapeHeader, Self), TapeError> {
        let mut input = BufReader::with_capacity(1 << 16, input);
        let mut magic = Vec::new();
        input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        let is_version_1 = magic == MAGIC_OF_VERSION_1.as_bytes();
        if magic != MAGIC.as_bytes() && !is_version_1 {
            return Err(TapeError::NoTape);
        }
        let mut line = Vec::new();
        input.by_ref().take(u64::from(MAX_ITEM_BYTES)).read_until(b'\n', &mut line)?;
        let header = serde_json::from_slice(&line).map_err(|_| TapeError::NoTape)?;
        Ok((header, Self { input, buffer: Vec::new(), items: 0, is_version_1, end: None }))
    }

    /// The next item; `None` after the last one.
    ///
    /// # Errors
    /// The tape is damaged or cut off.
    pub fn next_item(&mut self) -> Result<Option<TapeItem<'_>>, TapeError> {
        if self.end.is_some() {
            return Ok(self.next_of_end());
        }
        let items = self.items;
        let cut_off = |_| TapeError::CutOff { items };
        let mut head = [0_u8; 5];
        match self.input.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => self.input.read_exact(&mut head[1..]).map_err(cut_off)?,
        }
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        self.items += 1;
        let item = self.items;
        let damaged = |problem: String| TapeError::Damaged { item, problem };
        if length > MAX_ITEM_BYTES {
            return Err(damaged(format!("it says that it has {length} bytes")));
        }
        self.buffer.clear();
        self.input.by_ref().take(u64::from(length)).read_to_end(&mut self.buffer)?;
        if self.buffer.len() < length as usize {
            return Err(TapeError::CutOff { items });
        }
        let json = |error: serde_json::Error| damaged(error.to_string());
        if kind == END && self.is_version_1 {
            let end: EndOfVersion1 = serde_json::from_slice(&self.buffer).map_err(json)?;
            self.end = Some((end.records(), TapeEnd { totals: end.totals }));
            return Ok(self.next_of_end());
        }
        let bytes = self.buffer.as_slice();
        Ok(Some(match kind {
            RECORD => TapeItem::Record(RawRecord(bytes)),
            FUNCTIONS => TapeItem::Functions(serde_json::from_slice(bytes).map_err(json)?),
            THREAD => {
                let (thread, name) = serde_json::from_slice(bytes).map_err(json)?;
                TapeItem::Thread { thread, name }
            }
            PYTHON_NAMES => TapeItem::PythonNames(serde_json::from_slice(bytes).map_err(json)?),
            PYTHON_CLASS => {
                let (process, class, name) = serde_json::from_slice(bytes).map_err(json)?;
                TapeItem::PythonClass { process, class, name }
            }
            PROCESS => TapeItem::Process(serde_json::from_slice(bytes).map_err(json)?),
            GAP => TapeItem::Gap(serde_json::from_slice(bytes).map_err(json)?),
            ANCHOR => TapeItem::Anchor(serde_json::from_slice(bytes).map_err(json)?),
            UNWATCHED => TapeItem::Unwatched(serde_json::from_slice(bytes).map_err(json)?),
            END => TapeItem::End(serde_json::from_slice(bytes).map_err(json)?),
            kind => return Err(damaged(format!("its kind is {kind}"))),
        }))
    }

    /// The open calls that the end of a tape of version 1 held, as records, and then the end.
    fn next_of_end(&mut self) -> Option<TapeItem<'_>> {
        let (records, end) = self.end.as_mut()?;
        let Some(record) = records.pop_front() else {
            let end = end.clone();
            self.end = None;
            return Some(TapeItem::End(Box::new(end)));
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(record.as_bytes());
        Some(TapeItem::Record(RawRecord(&self.buffer)))
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes as _;

    use super::*;
    use crate::model::{ContainerMember, MonotonicNs, RouteTable, WallClockNs};

    fn python_names() -> PythonNames {
        let (container, child) = (RemoteAddress(0x10), RemoteAddress(0x11));
        PythonNames {
            containers: Vec::new(),
            process: 7,
            is_first: false,
            classes: vec![(RemoteAddress(0x20), "StandardScaler".into())],
            members: vec![ContainerMember {
                container,
                container_class: None,
                child,
                class: None,
                step: Some("scaler".into()),
            }],
            routes: vec![RouteTable::InOrder(Vec::new())],
        }
    }

    const LATER: ClockAnchor = ClockAnchor { monotonic: MonotonicNs(5), wall_clock: WallClockNs(900) };
    const GAP_OF_ONE: Gap = Gap { process: Some(7), from: MonotonicNs(3), to: None };

    fn unwatched() -> UnwatchedMethods {
        let methods = vec![(RemoteAddress(0x20), vec!["transform".into()])];
        UnwatchedMethods { process: 7, since: MonotonicNs(4), methods, are_others: false }
    }

    fn process() -> Target {
        Target {
            process: crate::model::ProcessId { pid: 9, start_time: 1 },
            command_line: vec!["worker".into()],
            executable: "/bin/worker".into(),
            modules: Vec::new(),
            container_id: None,
            image: crate::model::ProgramImage { code: 1, stack: 2 },
            service: crate::model::Service::default(),
        }
    }

    fn tape() -> Vec<u8> {
        let header = TapeHeader {
            seed: 7,
            anchor: ClockAnchor { monotonic: MonotonicNs(1), wall_clock: WallClockNs(2) },
            targets: Vec::new(),
        };
        let mut bytes = Vec::new();
        let mut writer = TapeWriter::new(&mut bytes, &header).expect("memory can be written");
        writer.json(THREAD, &(9, "worker")).expect("memory can be written");
        writer.python_names(&python_names()).expect("memory can be written");
        writer.python_class(7, RemoteAddress(0x30), Some("ValueError")).expect("memory can be written");
        writer.python_class(7, RemoteAddress(0x31), None).expect("memory can be written");
        writer.process(&process()).expect("memory can be written");
        writer.gap(GAP_OF_ONE).expect("memory can be written");
        writer.anchor(LATER).expect("memory can be written");
        writer.unwatched(&unwatched()).expect("memory can be written");
        writer.record(&RawRecord(&[1, 2, 3])).expect("memory can be written");
        let end = TapeEnd { totals: LossCounts { entries: 1, spans: 1, ..LossCounts::default() } };
        writer.finish(&end).expect("memory can be written");
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = tape();
        let (header, mut reader) = TapeReader::new(bytes.as_slice()).expect("a tape");
        assert_eq!(header.seed, 7);
        let thread = TapeItem::Thread { thread: 9, name: "worker".into() };
        assert_eq!(reader.next_item().expect("an item"), Some(thread));
        assert_eq!(reader.next_item().expect("an item"), Some(TapeItem::PythonNames(python_names())));
        for (class, name) in [(RemoteAddress(0x30), Some("ValueError".to_owned())), (RemoteAddress(0x31), None)] {
            let item = TapeItem::PythonClass { process: 7, class, name };
            assert_eq!(reader.next_item().expect("an item"), Some(item));
        }
        assert_eq!(reader.next_item().expect("an item"), Some(TapeItem::Process(Box::new(process()))));
        assert_eq!(reader.next_item().expect("an item"), Some(TapeItem::Gap(GAP_OF_ONE)));
        assert_eq!(reader.next_item().expect("an item"), Some(TapeItem::Anchor(LATER)));
        assert_eq!(reader.next_item().expect("an item"), Some(TapeItem::Unwatched(unwatched())));
        assert_eq!(reader.next_item().expect("an item"), Some(TapeItem::Record(RawRecord(&[1, 2, 3]))));
        let Some(TapeItem::End(end)) = reader.next_item().expect("an item") else { panic!("the end") };
        assert_eq!(end.totals.entries, 1);
        assert_eq!(reader.next_item().expect("nothing more"), None);
    }

    #[test]
    fn open_calls_of_a_tape_of_version_1_come_as_records() {
        let call = r#"{"process":7,"thread":8,"function":2,"ending":"still_open","thread_ended":false,"depth":1,"incarnation":500,
            "sequence":3,"call":23,"parent_call":22,"root_call":22,"start":10,"end":20,"stack_pointer":4096,"object":null,
            "return_value":null,"folded_calls":0,"arguments":[null,5,null,null]}"#;
        let end = format!(
            r#"{{"totals":{{"entries":1,"spans":0,"folded":0,"open":1,"lost":[],"returns_without_entry":0}},"open_calls":[{call}]}}"#
        );
        let mut bytes = tape();
        let old_end =
            serde_json::to_vec(&TapeEnd { totals: LossCounts { entries: 1, spans: 1, ..LossCounts::default() } });
        bytes.truncate(bytes.len() - 5 - old_end.expect("JSON").len());
        bytes[..MAGIC.len()].copy_from_slice(MAGIC_OF_VERSION_1.as_bytes());
        bytes.push(END);
        bytes.extend_from_slice(&(end.len() as u32).to_le_bytes());
        bytes.extend_from_slice(end.as_bytes());

        let (_, mut reader) = TapeReader::new(bytes.as_slice()).expect("a tape");
        let mut records = Vec::new();
        loop {
            match reader.next_item().expect("an item").expect("the end comes last") {
                TapeItem::Record(record) => records.push(record.0.to_vec()),
                TapeItem::End(end) => break assert_eq!(end.totals.open, 1),
                _ => {}
            }
        }
        assert_eq!(reader.next_item().expect("nothing more"), None);
        let open = WideCallRecord::read_from_bytes(&records[1]).expect("a record");
        assert_eq!((open.call.call, open.call.parent_call, open.call.thread_first_seen_ns), (23, 22, 500));
        assert_eq!((open.call.arguments_read, open.call.arguments), (0b10, [0, 5, 0, 0]));
        assert_eq!(open.call.ending, tracer_common::records::RecordEnding::Open as u32);
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let good = tape();
        for length in 0..good.len() {
            if let Ok((_, mut reader)) = TapeReader::new(&good[..length]) {
                while let Ok(Some(_)) = reader.next_item() {}
            }
        }
        for position in 0..good.len() {
            let mut bytes = good.clone();
            bytes[position] ^= 0xff;
            if let Ok((_, mut reader)) = TapeReader::new(bytes.as_slice()) {
                while let Ok(Some(_)) = reader.next_item() {}
            }
        }
        assert!(matches!(TapeReader::new(&b"hello"[..]), Err(TapeError::NoTape)));
    }
}
