//! How a shard asks its home for its clients' configs, and what it is told. What stands in a config is for others to read; the grammar is
//! in docs/FORMATS.md.
//!
//! Whoever passes an answer on isn't believed: its MAC is over the question, too, which has a nonce, so that no earlier answer is taken for
//! this one's.

use thiserror::Error;

use crate::client::ClientId;
use crate::codec::{DecodeError, Reader, put_str, put_uv};
use crate::limits::{
    CLIENT_BYTES_MAX, CONFIG_ANSWER_BYTES_MAX, CONFIG_BYTES_MAX, CONFIG_CLIENTS_MAX, ROUTE_NAME_BYTES_MAX,
};
use crate::secret::{ConfigKey, equal_in_constant_time};

const QUESTION: &[u8; 3] = b"CQ\x01";
const ANSWER: &[u8; 3] = b"CG\x01";
const MAC_BYTES: usize = 16;

/// Which configs a shard has. One that names no client asks for the version alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What no other question of this shard has.
    pub nonce: u64,
    /// The region that is asked.
    pub home: String,
    /// Clients, ascending, and the version of the config that the shard has; 0: none.
    pub clients: Vec<(ClientId, u32)>,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The version of the deployment's configs: that of the last change of any.
    pub version: u32,
    /// Whether some that differ had no place: ask again for what is not here.
    pub more: bool,
    /// The configs, ascending by client, that differ from those of the question.
    pub configs: Vec<Told>,
}

/// A client's config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whose.
    pub client: ClientId,
    /// The version of its last change; 0: it has none.
    pub version: u32,
    /// Its bytes; empty where it has none.
    pub config: Vec<u8>,
}

/// Why an answer isn't taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It isn't of the home, or of another question.
    #[error("the MAC is wrong")]
    Mac,
    /// It is no answer.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl Question {
    /// The question's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = QUESTION.to_vec();
        out.extend_from_slice(&self.nonce.to_le_bytes());
        put_str(&mut out, &self.home);
        put_uv(&mut out, self.clients.len() as u64);
        for (client, version) in &self.clients {
            put_str(&mut out, client.as_str());
            out.extend_from_slice(&version.to_le_bytes());
        }
        out
    }

    /// Reads a question, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = headed(bytes, QUESTION)?;
        let nonce = reader.u64()?;
        let home = reader.str(ROUTE_NAME_BYTES_MAX)?.into();
        let n = reader.count(6)?;
        if n > CONFIG_CLIENTS_MAX {
            return Err(DecodeError::Malformed("too many clients"));
        }
        let mut clients: Vec<(ClientId, u32)> = Vec::with_capacity(n);
        for _ in 0..n {
            let client = read_client(&mut reader, clients.last().map(|(client, _)| client))?;
            clients.push((client, reader.u32()?));
        }
        reader.finish()?;
        Ok(Question { nonce, home, clients })
    }

    /// The region that is asked: all that whoever passes a question on needs to know.
    pub fn home(bytes: &[u8]) -> Result<&str, DecodeError> {
        let mut reader = headed(bytes, QUESTION)?;
        reader.u64()?;
        reader.str(ROUTE_NAME_BYTES_MAX)
    }
}

impl Answer {
    /// The bytes of the answer to a question.
    pub fn encode(&self, question: &[u8], key: &ConfigKey) -> Vec<u8> {
        let mut body = self.version.to_le_bytes().to_vec();
        body.push(u8::from(self.more));
        put_uv(&mut body, self.configs.len() as u64);
        for Told { client, version, config } in &self.configs {
            put_str(&mut body, client.as_str());
            body.extend_from_slice(&version.to_le_bytes());
            put_uv(&mut body, config.len() as u64);
            body.extend_from_slice(config);
        }
        [&ANSWER[..], &key.mac(question, &body), &body].concat()
    }

    /// Reads the answer to a question, all of it.
    pub fn decode(bytes: &[u8], question: &[u8], key: &ConfigKey) -> Result<Self, AnswerError> {
        let mut reader = headed(bytes, ANSWER)?;
        let mac: [u8; MAC_BYTES] = reader.array()?;
        let body = reader.bytes(reader.remaining())?;
        if !equal_in_constant_time(&mac, &key.mac(question, body)) {
            return Err(AnswerError::Mac);
        }
        Ok(Answer::decode_body(body)?)
    }

    fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let version = reader.u32()?;
        let more = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Malformed("more is 0 or 1")),
        };
        let mut configs: Vec<Told> = Vec::new();
        for _ in 0..reader.count(7)? {
            let client = read_client(&mut reader, configs.last().map(|told| &told.client))?;
            let version = reader.u32()?;
            let length = reader.count(1)?;
            if length > CONFIG_BYTES_MAX {
                return Err(DecodeError::Malformed("config too long"));
            }
            configs.push(Told { client, version, config: reader.bytes(length)?.into() });
        }
        reader.finish()?;
        Ok(Answer { version, more, configs })
    }

    /// Whether another config would still have a place in the answer.
    pub fn has_room_for(&self, config: &[u8]) -> bool {
        let each = |bytes: usize| CLIENT_BYTES_MAX + 16 + bytes;
        let bytes: usize = self.configs.iter().map(|told| each(told.config.len())).sum();
        bytes + each(config.len()) + 64 <= CONFIG_ANSWER_BYTES_MAX
    }
}

fn headed<'a>(bytes: &'a [u8], head: &[u8; 3]) -> Result<Reader<'a>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let [one, two, version] = reader.array()?;
    match (&[one, two], version == head[2]) {
        (magic, true) if magic[..] == head[..2] => Ok(reader),
        (magic, false) if magic[..] == head[..2] => Err(DecodeError::Version(version)),
        _ => Err(DecodeError::Malformed("not about configs")),
    }
}

/// The next client, after the one before it.
fn read_client(reader: &mut Reader<'_>, before: Option<&ClientId>) -> Result<ClientId, DecodeError> {
    let client = ClientId::new(reader.str(CLIENT_BYTES_MAX)?).map_err(|_| DecodeError::Malformed("client id"))?;
    if before.is_some_and(|before| *before >= client) {
        return Err(DecodeError::Malformed("clients not ascending"));
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Secret;

    fn key() -> ConfigKey {
        Secret::new(&[7; 32]).unwrap().config_key()
    }

    fn question() -> impl Strategy<Value = Question> {
        let clients = prop::collection::btree_map("[a-z]{1,4}", any::<u32>(), 0..5);
        (any::<u64>(), "[a-z]{1,8}", clients).prop_map(|(nonce, home, clients): (_, _, BTreeMap<String, u32>)| {
            let clients = clients.into_iter().map(|(client, version)| (ClientId::new(&client).unwrap(), version));
            Question { nonce, home, clients: clients.collect() }
        })
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let config = (any::<u32>(), prop::collection::vec(any::<u8>(), 0..20));
        let configs = prop::collection::btree_map("[a-z]{1,4}", config, 0..5);
        (any::<u32>(), any::<bool>(), configs).prop_map(|(version, more, configs)| {
            let told = |(client, (version, config)): (String, (u32, Vec<u8>))| Told {
                client: ClientId::new(&client).unwrap(),
                version,
                config,
            };
            Answer { version, more, configs: configs.into_iter().map(told).collect() }
        })
    }

    proptest! {
        #[test]
        fn questions_and_answers_round_trip(question in question(), answer in answer()) {
            let asked = question.encode();
            prop_assert_eq!(Question::home(&asked), Ok(&*question.home));
            prop_assert_eq!(Question::decode(&asked), Ok(question));
            prop_assert_eq!(Answer::decode(&answer.encode(&asked, &key()), &asked, &key()), Ok(answer));
        }

        #[test]
        fn an_answer_is_of_its_question_and_as_it_was_sealed(
            (one, other, answer) in (question(), question(), answer()),
            at: prop::sample::Index,
            flip in 1u8..,
        ) {
            prop_assume!(one != other);
            let (asked, bytes) = (one.encode(), answer.encode(&one.encode(), &key()));
            prop_assert_eq!(Answer::decode(&bytes, &other.encode(), &key()), Err(AnswerError::Mac));
            let mut changed = bytes.clone();
            let at = at.index(bytes.len());
            changed[at] ^= flip;
            prop_assert!(Answer::decode(&changed, &asked, &key()).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&QUESTION[..], &bytes].concat();
            if let Ok(question) = Question::decode(&bytes) {
                prop_assert_eq!(question.encode(), bytes);
            }
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let client = ClientId::new("shop").unwrap();
        let question = Question { nonce: 1, home: "eu".into(), clients: vec![(client.clone(), 2)] };
        let hex = data_encoding::HEXLOWER.encode(&question.encode());
        assert_eq!(hex, "4351010100000000000000026575010473686f7002000000");
        let answer =
            Answer { version: 3, more: true, configs: vec![Told { client, version: 3, config: vec![0xab, 0xcd] }] };
        let hex = data_encoding::HEXLOWER.encode(&answer.encode(&question.encode(), &key())[3 + MAC_BYTES..]);
        assert_eq!(hex, "0300000001010473686f700300000002abcd");
    }
}
