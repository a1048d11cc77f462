//! Clients' configs: set, told, and still there after a restart.

use catchment_cells::config::{Answer, Question};
use catchment_cells::limits::CONFIG_BYTES_MAX;
use catchment_config::Config;

use super::kit::{Aggregator, DAY, Folder, Shard, client, one, secret};
use crate::configs::PutError;

fn read(json: &str) -> Config {
    Config::read(json.as_bytes()).unwrap()
}

fn with_cube(name: &str, dimension: &str) -> Config {
    read(&format!(r#"{{"cubes": [{{"name": "{name}", "dimensions": ["{dimension}"], "digest": true}}]}}"#))
}

/// The version that is told, and whose configs with theirs, of a shard that has these.
fn told(aggregator: &Aggregator, known: &[(&str, u32)]) -> (u32, Vec<(String, u32)>, bool) {
    let clients = known.iter().map(|(name, version)| (client(name), *version)).collect();
    let question = Question { nonce: 3, home: "eu".into(), clients }.encode();
    let answer = aggregator.configs.answer(&question).unwrap();
    let answer = Answer::decode(&answer, &question, &secret().config_key()).unwrap();
    for told in answer.configs.iter().filter(|told| told.version > 0) {
        assert_eq!(Config::decode(&told.config).unwrap(), aggregator.configs.get(&told.client).config);
    }
    let configs = answer.configs.into_iter().map(|told| (told.client.to_string(), told.version));
    (answer.version, configs.collect(), answer.more)
}

#[test]
fn what_is_set_is_told_and_stays() {
    let folder = Folder::new();
    let mut aggregator = Aggregator::open(&folder);
    assert_eq!(told(&aggregator, &[("a", 0), ("b", 4)]), (0, vec![("b".into(), 0)], false), "b had one elsewhere");
    let set =
        |aggregator: &Aggregator, name: &str, config| aggregator.configs.put(&client(name), config, None).unwrap();
    assert_eq!(set(&aggregator, "a", with_cube("mine", "page")), 1);
    assert_eq!(set(&aggregator, "b", read("{}")), 2);
    assert_eq!(set(&aggregator, "a", with_cube("mine", "page")), 1, "no change");
    let both = vec![("a".to_owned(), 1), ("b".to_owned(), 2)];
    assert_eq!(told(&aggregator, &[("a", 0), ("b", 0), ("c", 0)]), (2, both, false));
    assert_eq!(told(&aggregator, &[("a", 1)]), (2, vec![], false));
    let mut shard = Shard::new(1);
    let frame = shard.cut(one(&client("a"), DAY));
    assert_eq!(aggregator.take(vec![frame])[0].config_version, 2, "acks bear the version");

    // The version that is expected, and the cubes that were.
    let put = |expected, config| aggregator.configs.put(&client("a"), config, expected);
    assert!(matches!(put(Some(2), read("{}")), Err(PutError::Changed(1))));
    assert!(matches!(put(None, with_cube("mine", "country")), Err(PutError::Cube(_))));
    assert_eq!(put(Some(1), with_cube("other", "country")).unwrap(), 3);
    let cubes = |aggregator: &Aggregator| -> Vec<(String, bool)> {
        let cubes = aggregator.cells.cubes(&client("a"));
        cubes.iter().map(|cube| (cube.name.to_string(), cube.digest)).collect()
    };
    assert_eq!(cubes(&aggregator), [("other".to_owned(), true)], "questions are answered from what is filled");
    drop(aggregator);

    let aggregator = Aggregator::open(&folder);
    assert_eq!(cubes(&aggregator), [("other".to_owned(), true)]);
    assert_eq!(told(&aggregator, &[("a", 1)]), (3, vec![("a".into(), 3)], false));
    let put = |config| aggregator.configs.put(&client("a"), config, None);
    assert!(matches!(put(with_cube("mine", "country")), Err(PutError::Cube(_))), "the name stays taken");
    assert_eq!(put(with_cube("mine", "page")).unwrap(), 4);
}

#[test]
fn an_answer_is_bounded_and_says_that_there_is_more() {
    let folder = Folder::new();
    let aggregator = Aggregator::open(&folder);
    let values: Vec<String> = (0..700).map(|i| format!(r#""{i}{}":"v""#, "x".repeat(CONFIG_BYTES_MAX / 800))).collect();
    let large =
        format!(r#"{{"lookups": [{{"dimension": "plan", "from": "page", "values": {{{}}}}}]}}"#, values.join(","));
    for name in ["a", "b", "c", "d", "e", "f"] {
        aggregator.configs.put(&client(name), read(&large), None).unwrap();
    }
    let mut known = ["a", "b", "c", "d", "e", "f"].map(|name| (name, 0));
    let (mut rounds, mut more) = (0, true);
    while more {
        let configs;
        (_, configs, more) = told(&aggregator, &known);
        assert!(!configs.is_empty());
        for (name, version) in configs {
            known.iter_mut().filter(|(known, _)| *known == name).for_each(|(_, at)| *at = version);
        }
        rounds += 1;
    }
    assert_eq!((rounds, known.map(|(_, version)| version)), (2, [1, 2, 3, 4, 5, 6]));
    assert_eq!(aggregator.configs.answer(b"what?"), None);
}

#[test]
fn files_are_taken_where_nothing_was_set() {
    let folder = Folder::new();
    let files = Folder::new();
    let aggregator = Aggregator::open(&folder);
    aggregator.configs.put(&client("b"), with_cube("mine", "page"), None).unwrap();
    let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
    write("a.json", r#"{"lateness_minutes": 5}"#);
    write("b.json", r#"{"lateness_minutes": 6}"#);
    write("notes.txt", "not a config");
    aggregator.configs.seed(files.path()).unwrap();
    let lateness = |name: &str| aggregator.configs.get(&client(name)).config.lateness_minutes;
    assert_eq!((lateness("a"), lateness("b")), (5, 1_440));
    for (name, text, part) in [
        ("c.json", r#"{"lateness_minutes": 5000}"#, "lateness_minutes: is at most"),
        ("no client.json", "{}", "its name"),
    ] {
        write(name, text);
        let error = aggregator.configs.seed(files.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
        std::fs::remove_file(files.path().join(name)).unwrap();
    }
}

#[test]
fn a_config_that_another_version_took_is_told_on_and_said_to_be_unreadable() {
    let (folder, a) = (Folder::new(), client("a"));
    let aggregator = Aggregator::open(&folder);
    let newer = br#"{"colour":"red","keys":{"read_generation_min":2,"else":1},"limits":{"values_per_dimension":10}}"#;
    let newer = [&[1][..], newer].concat();
    aggregator.cells.store().put_config(&a, 3, &newer, &[], None).unwrap();
    drop(aggregator);
    let aggregator = Aggregator::open(&folder);
    let read = aggregator.configs.get(&a);
    assert!(read.unreadable.as_ref().is_some_and(|reason| reason.contains("colour")), "{read:?}");
    assert_eq!((read.config.keys.read_generation_min, read.config.limits.values_per_dimension), (2, 10), "these hold");
    let question = Question { nonce: 3, home: "eu".into(), clients: vec![(a.clone(), 0)] }.encode();
    let answer = aggregator.configs.answer(&question).unwrap();
    let answer = Answer::decode(&answer, &question, &secret().config_key()).unwrap();
    assert_eq!((answer.version, &answer.configs[0].config), (3, &newer));
    assert_eq!(aggregator.configs.put(&a, Config::default(), Some(3)).unwrap(), 4, "set anew");
    assert_eq!(aggregator.configs.get(&a).unreadable, None);
}
