//! The known answers of the reference implementation of Argon2 (RFC 9106), with the crate that `password` uses.

use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};

#[test]
#[cfg_attr(not(vectors), ignore = "needs ../shared/vectors/argon2-kats")]
fn argon2_gives_the_known_answers() {
    for (name, algorithm) in
        [("argon2d", Algorithm::Argon2d), ("argon2i", Algorithm::Argon2i), ("argon2id", Algorithm::Argon2id)]
    {
        let text = std::fs::read_to_string(super::folder("argon2-kats").join(format!("{name}.txt"))).unwrap();
        let tag = text.lines().find_map(|line| line.strip_prefix("Tag: ")).unwrap();
        let mut builder = ParamsBuilder::new();
        builder.m_cost(32).t_cost(3).p_cost(4).output_len(32).data(AssociatedData::new(&[4; 12]).unwrap());
        let argon2 = Argon2::new_with_secret(&[3; 8], algorithm, Version::V0x13, builder.build().unwrap()).unwrap();
        let mut output = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut output).unwrap();
        let output: Vec<String> = output.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(output.join(" "), tag.trim(), "{name}");
    }
}
