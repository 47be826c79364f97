//! Tests of the paths that are read without the demangler.

use super::*;

fn path(symbol: &str) -> String {
    components(symbol).unwrap_or_else(|| panic!("{symbol} is well-formed")).join("::")
}

#[test]
fn constraints_and_modules_are_stepped_over() {
    for (symbol, expected) in [
        ("_ZN6Linear7predictITkSt14floating_pointdEEdT_", "Linear::predict"),
        ("_ZN6Linear7predictIdEEdT_QgtstTL0__Li4E", "Linear::predict"),
        ("_ZN2ml6ScalerITk6NumberdE9transformEdQsr3stdE16floating_point_vIT_E", "ml::Scaler::transform"),
        ("_ZN4TreeIiQ6NumberIT_EE7predictEi", "Tree::predict"),
        ("_ZN4WrapITk9EstimatorN2ml6LinearEE7predictEd", "Wrap::predict"),
        ("_ZN4WrapI6LinearQrqXcldtfp_7predictfp0_ER11ConvertibleIdETNT_4typeEQL_Z6NumberIS0_EEEE3fitEv", "Wrap::fit"),
        ("_ZN2FnIZ4mainEUlTyT_E_E7predictEd", "Fn::predict"),
        ("_ZNW5model2ml5Model7predictEv", "ml::Model::predict"),
        ("_ZNH2ml5Model7predictES0_d", "ml::Model::predict"),
        ("_ZN4NttpIXtl1PLi3EEEE3fitEd", "Nttp::fit"),
        ("_ZN1AIXadL_ZN1B1fEivEEE3fitEv", "A::fit"),
        ("_ZN1AILZN1B1fEvEE3fitEv", ""),
        ("_ZN1AIFvRKiOEDnDv4_fDF16_A3_iM1BKFivEE3fitEv", "A::fit"),
    ] {
        match expected {
            "" => assert_eq!(components(symbol), None, "{symbol}"),
            expected => assert_eq!(path(symbol), expected, "{symbol}"),
        }
    }
}

#[test]
fn identifiers_are_counted_in_bytes() {
    assert_eq!(path("_ZN6模型7predictEd"), "模型::predict");
    assert_eq!(path("_ZN9schätzer4Wald3fitEd"), "schätzer::Wald::fit");
    assert_eq!(components("_ZN5模型7predictEd"), None);
}

#[test]
fn local_names_operators_and_constructors() {
    assert_eq!(path("_ZZN3Foo7predictEiEN5Local3runEv"), "Foo::predict()::Local::run");
    assert_eq!(path("_ZZN3Foo7predictEiENKUliE_clEi"), "Foo::predict()::{lambda}::operator ?");
    assert_eq!(path("_ZN2ml5ModelC1Ev"), "ml::Model::Model");
    assert_eq!(path("_ZN2ml5ModelD0Ev"), "ml::Model::~Model");
    assert_eq!(path("_ZN12_GLOBAL__N_15Model7predictEv"), "(anonymous namespace)::Model::predict");
    assert_eq!(path("_ZNSt6vectorIdSaIdEE3fitB5cxx11Ev"), "std::vector::fit");
    assert_eq!(path("_Z7predictPKd"), "predict");
    assert_eq!(path("_ZSt7predictIdEvT_"), "std::predict");
}

#[test]
fn nonsense_ends() {
    for symbol in ["_Z", "_ZN", "_ZNE", "_ZN3fi", "_ZN99999999999999999999aE", "_ZNKI", "_ZN1AIXX"] {
        assert_eq!(components(symbol), None, "{symbol}");
    }
    assert_eq!(components(&format!("_ZN1AI{}E3fitEv", "P".repeat(200_000))), None);
    assert_eq!(components(&format!("_ZN1A{}", "I".repeat(200_000))), None);
}
