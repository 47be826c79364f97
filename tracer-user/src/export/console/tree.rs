//! The spans of one trace, as lines.

use std::collections::HashMap;
use std::num::NonZeroU32;

use unicode_width::UnicodeWidthStr as _;

use super::super::covered::Covered;
use super::columns::Room;
use super::layout::{DIM, Line, Palette, duration, guides, shorten, span_line, time_of_day};
use crate::model::{Span, SpanId, printable};

/// Children of one call that are shown; what is beyond is summed up in a line.
const MAX_CHILDREN: usize = 100;

/// How trees are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawing {
    /// In colour or not.
    pub palette: Palette,
    /// On lines with this room.
    pub room: Room,
    /// So many levels; all if `None`.
    pub depth: Option<NonZeroU32>,
}

/// The lines of the calls of one trace, without colour, for a terminal of so many columns. Names are fit to be shown.
#[must_use]
pub fn tree_lines(spans: &[Span], columns: usize) -> Vec<String> {
    let drawing = Drawing { palette: Palette { colour: false }, room: Room::of(columns, true), depth: None };
    let mut text = String::new();
    Tree::new(spans).draw_calls(&mut text, &drawing);
    text.lines().map(str::to_owned).collect()
}

/// The spans of one trace, in their order, each with the calls inside it.
pub struct Tree<'span> {
    spans: &'span [Span],
    /// Calls whose parent is not among the spans.
    roots: Vec<usize>,
    children: Vec<Vec<usize>>,
}

impl<'span> Tree<'span> {
    /// The tree of these spans.
    pub fn new(spans: &'span [Span]) -> Self {
        let indices: HashMap<SpanId, usize> =
            spans.iter().enumerate().map(|(index, span)| (span.span_id, index)).collect();
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
        let mut roots = Vec::new();
        for (index, span) in spans.iter().enumerate() {
            match span.parent.span_id().and_then(|parent| indices.get(&parent)) {
                Some(parent) => children[*parent].push(index),
                None => roots.push(index),
            }
        }
        roots.sort_by_key(|index| spans[*index].start);
        children.iter_mut().for_each(|list| list.sort_by_key(|index| spans[*index].start));
        Self { spans, roots, children }
    }

    /// Nanoseconds that the longest of the outermost calls took.
    pub fn longest(&self) -> u64 {
        self.roots.iter().map(|root| self.spans[*root].duration_ns()).max().unwrap_or_default()
    }

    /// Calls inside these calls, and inside those.
    fn calls_inside(&self, calls: &[usize]) -> usize {
        let mut to_count = calls.to_vec();
        let mut count = 0;
        while let Some(call) = to_count.pop() {
            count += 1;
            to_count.extend(&self.children[call]);
        }
        count
    }

    /// Appends the tree with a heading. Calls whose parent is not among the spans stand at the left.
    pub fn draw(&self, text: &mut String, drawing: &Drawing, service: &str, whole: bool) {
        let Some(first) = self.roots.first().map(|root| &self.spans[*root]) else { return };
        heading(text, drawing, service, first, whole);
        self.draw_calls(text, drawing);
        text.push('\n');
    }

    /// Appends the lines of the calls.
    pub fn draw_calls(&self, text: &mut String, drawing: &Drawing) {
        let Drawing { palette, room, depth } = *drawing;
        let mut more_follow: Vec<bool> = Vec::new();
        // Each entry: what to draw at which level, and whether siblings follow. The last entry is drawn next.
        let roots = self.roots.iter().rev();
        let mut to_draw: Vec<(Item, usize, bool)> = roots.map(|root| (Item::Span(*root), 0, false)).collect();
        while let Some((item, level, more)) = to_draw.pop() {
            more_follow.truncate(level.saturating_sub(1));
            if level > 0 {
                more_follow.push(more);
            }
            let index = match item {
                Item::Span(index) => index,
                Item::Rest { parent } => {
                    let calls = self.children[parent].iter().skip(MAX_CHILDREN).map(|index| &self.spans[*index]);
                    rest(text, palette, &guides(&more_follow, room.levels), calls);
                    continue;
                }
            };
            let span = &self.spans[index];
            let own = &self.children[index];
            let mut inside = Covered::default();
            own.iter().for_each(|child| inside.add(&self.spans[*child]));
            let self_time = (!own.is_empty()).then(|| span.duration_ns().saturating_sub(inside.within(span)));
            let is_deepest = depth.is_some_and(|depth| level + 1 >= depth.get() as usize);
            let hidden_calls = if is_deepest { self.calls_inside(own) } else { 0 };
            let (shown, more_follow) = (if is_deepest { &[][..] } else { &own[..] }, &more_follow[..]);
            let has_children = !shown.is_empty();
            let line = Line { more_follow, self_time, parent_is_shown: level > 0, has_children, hidden_calls };
            span_line(text, palette, &room, span, line);
            let has_rest = shown.len() > MAX_CHILDREN;
            if has_rest {
                to_draw.push((Item::Rest { parent: index }, level + 1, false));
            }
            let last = shown.len().min(MAX_CHILDREN);
            let drawn = shown.iter().take(MAX_CHILDREN).enumerate().rev();
            to_draw.extend(drawn.map(|(place, child)| (Item::Span(*child), level + 1, has_rest || place + 1 < last)));
        }
    }
}

enum Item {
    Span(usize),
    /// The children of a span that are too many to show.
    Rest {
        parent: usize,
    },
}

fn heading(text: &mut String, drawing: &Drawing, service: &str, first: &Span, whole: bool) {
    let Drawing { palette, room, .. } = drawing;
    let mut heading = format!("{}  {}[{}]", time_of_day(first.start), printable(service), first.process);
    heading.push_str(&format!("  thread {}", first.thread.0));
    if let Some(name) = &first.thread_name {
        heading.push_str(&format!(" {}", printable(name)));
    }
    let end = if whole { format!("  trace {}", first.trace_id) } else { format!("  part of trace {}", first.trace_id) };
    // What is cut off when it gets long is not the trace id, which people search for: where a terminal has no room for it
    // beside the rest, it is left out.
    let (heading, end) = match room.has_own_line && heading.width() + end.width() > room.line {
        true => (shorten(&heading, room.line), String::new()),
        false => (shorten(&heading, room.line.saturating_sub(end.width())), end),
    };
    palette.paint(text, DIM, &format!("{heading}{end}"));
    text.push('\n');
}

fn rest<'span>(text: &mut String, palette: Palette, guides: &str, spans: impl Iterator<Item = &'span Span>) {
    let (count, total) =
        spans.fold((0_u64, 0_u64), |(count, total), span| (count + 1, total.saturating_add(span.duration_ns())));
    text.push_str("  ");
    palette.paint(text, DIM, &format!("{guides}… {count} more calls, {} in all", duration(total)));
    text.push('\n');
}
