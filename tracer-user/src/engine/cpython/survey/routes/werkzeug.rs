//! Routes as werkzeug keeps them, for Flask.

use super::super::super::ReadProblem;
use super::reader::{Fields, Reader};
use crate::memory::Memory;
use crate::model::{PartedRoute, RemoteAddress, RoutePart};

/// Whether an application of Flask was asked something (`_got_first_request`, flask/app.py): otherwise something else answers, perhaps.
pub fn is_served<M: Memory>(reader: &Reader<'_, M>, application: RemoteAddress) -> Result<bool, ReadProblem> {
    reader.is_true(&reader.fields(application)?, "_got_first_request")
}

/// The rules of an application of Flask, as werkzeug 2.2 and later keep them. `None`: they are kept otherwise, or chosen by the host.
pub fn rules_of<M: Memory>(
    reader: &Reader<'_, M>,
    application: RemoteAddress,
) -> Result<Option<Vec<PartedRoute>>, ReadProblem> {
    let Some(map) = reader.fields(application)?.get("url_map") else { return Ok(None) };
    let map = reader.fields(map)?;
    let Some(by_endpoint) = map.get("_rules_by_endpoint") else { return Ok(None) };
    if reader.is_true(&map, "host_matching")? {
        return Ok(None);
    }
    let mut rules = Vec::new();
    for list in reader.values(by_endpoint)? {
        for rule in reader.items(list)? {
            if !reader.takes_one() {
                return Ok(None);
            }
            let fields = reader.fields(rule)?;
            if reader.is_true(&fields, "websocket")? || reader.is_true(&fields, "build_only")? {
                continue;
            }
            let Some(rule) = rule_of(reader, &fields)? else { return Ok(None) };
            rules.push(rule);
        }
    }
    Ok(Some(rules))
}

fn rule_of<M: Memory>(reader: &Reader<'_, M>, fields: &Fields) -> Result<Option<PartedRoute>, ReadProblem> {
    let (Some(template), Some(methods), Some(list)) =
        (reader.text(fields.get("rule"))?, reader.methods(fields.get("methods"))?, fields.get("_parts"))
    else {
        return Ok(None);
    };
    let mut parts = Vec::new();
    for part in reader.items(list)? {
        let Some(part) = part_of(reader, &reader.fields(part)?)? else { return Ok(None) };
        parts.push(part);
    }
    Ok(Some(PartedRoute { template, methods, parts, is_strict: reader.is_true(fields, "strict_slashes")? }))
}

fn part_of<M: Memory>(reader: &Reader<'_, M>, fields: &Fields) -> Result<Option<RoutePart>, ReadProblem> {
    let Some(content) = reader.text(fields.get("content"))? else { return Ok(None) };
    if reader.is_true(fields, "static")? {
        return Ok(Some(RoutePart::Text(content)));
    }
    let Some(weight) = fields.get("weight") else { return Ok(None) };
    let (rank, is_last) = (rank_of(reader, weight)?, reader.is_true(fields, "final")?);
    Ok(Some(RoutePart::Fitting { pattern: content, rank, is_last }))
}

/// The numbers of a `Weighting` (werkzeug/routing/rules.py), one after the other: the first and the third say how many there are in the
/// lists behind them, so that these compare as the tuples do. They are negative, as are the lengths in the first list.
fn rank_of<M: Memory>(reader: &Reader<'_, M>, weight: RemoteAddress) -> Result<Vec<i64>, ReadProblem> {
    let torn = || ReadProblem::Torn { address: weight, what: "weight of a part of a route" };
    let number = |object: RemoteAddress| reader.interpreter.small_integer(object).map(i64::from);
    let count = |items: &[RemoteAddress]| -i64::try_from(items.len()).unwrap_or(i64::MAX);
    let fields = reader.items(weight)?;
    let [_, texts, _, variables] = fields[..] else { return Err(torn()) };
    let (texts, variables) = (reader.items(texts)?, reader.items(variables)?);
    let mut rank = vec![count(&texts)];
    for text in &texts {
        let items = reader.items(*text)?;
        let [index, length] = items[..] else { return Err(torn()) };
        rank.extend([number(index)?, -number(length)?]);
    }
    rank.push(count(&variables));
    for variable in &variables {
        rank.push(number(*variable)?);
    }
    Ok(rank)
}
